"""A job over the wire."""

from server.catalog_jobs import Job


def job_reply(job: Job) -> dict[str, object]:
    """Where a job stands. `receipt` once it succeeded, `error` once it failed; `progress` is that of its last run."""
    is_cancelling = job.cancelling and job.state == "running"
    return {
        "object": "job",
        "id": job.id,
        "state": "cancelling" if is_cancelling else job.state,
        "collection": job.collection,
        "namespace": job.namespace,
        "files": [uri for uri, _ in job.files],
        "size_bytes": job.size_bytes,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "attempts": job.attempts,
        "progress": job.progress or None,
        "receipt": job.receipt,
        "error": job.error,
    }
