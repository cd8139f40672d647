"""Jobs: uploads in the background. Seen by those who may write to the namespace and read what was sent."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from server.access import may_reach
from server.base import Principal, is_readable
from server.catalog_jobs import Job, no_job
from server.jobs import Jobs
from server.routes import Writer, face_of, json_response, new_router, page_response
from server.schemas.jobs import job_reply

router = new_router()


@router.get("/v1/jobs")
async def list_jobs(
    request: Request, caller: Writer, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """A page of jobs, the newest first; `next` is the `after` of the next page."""
    jobs = face_of(request).desk.jobs
    found: list[Job] = []
    while len(found) <= limit:  # one more than is shown, so that no page ends at a job that is not the caller's to see
        page, after = await jobs.page(after, limit)
        found += [job for job in page if _may_see(caller, job)]
        if after is None:
            break
    following = found[limit - 1].id if len(found) > limit else None
    return page_response([job_reply(job) for job in found[:limit]], following)


@router.get("/v1/jobs/{job_id}")
async def get_job(job_id: str, request: Request, caller: Writer) -> Response:
    """How far a job is."""
    return json_response(job_reply(await _visible(face_of(request).desk.jobs, caller, job_id)))


@router.post("/v1/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, request: Request, caller: Writer) -> Response:
    """End a job; what it has committed stays."""
    jobs = face_of(request).desk.jobs
    await _visible(jobs, caller, job_id)
    return json_response(job_reply(await jobs.cancel(job_id)))


async def _visible(jobs: Jobs, caller: Principal, job_id: str) -> Job:
    """Raises NotFoundError, in the words of the catalog also for a job that is not the caller's to see."""
    job = await jobs.get(job_id)
    if not _may_see(caller, job):
        raise no_job(job_id)
    return job


def _may_see(caller: Principal, job: Job) -> bool:
    """What does not say who may read it may bring what the caller must not."""
    may_read = caller.groups is None if job.groups is None else is_readable(job.groups, caller.groups)
    return may_reach(caller, job.collection, job.namespace) and (may_read or job.created_by == caller.key_id)
