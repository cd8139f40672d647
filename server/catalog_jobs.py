"""Jobs in the catalog: uploads taken in now and worked on later. Functions of one transaction.

receiving → queued → running → succeeded | failed | cancelled. Jobs of one namespace are done one after another, so that
of two uploads of a name the later one stands, whoever does them and however often.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from indexers.base import Metadata
from server.base import ConflictError, NotFoundError, OverloadedError
from server.catalog_documents import to_json
from server.tables import collections, job_blocks, jobs, namespaces

State = Literal["receiving", "queued", "running", "succeeded", "failed", "cancelled"]
Ended = Literal["succeeded", "failed", "cancelled"]
_GIVEN_UP = "the upload was given up, as it took so long, or its namespace was dropped: send it again"
UNFINISHED = ("receiving", "queued", "running")
KEPT_S = 7 * 86_400.0  # a finished job's record
RETRY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """An upload's way into a namespace. `progress`: counts; times in Unix seconds; `files`: (uri, media type)."""

    id: str
    state: State
    collection: str
    namespace: str
    groups: tuple[str, ...] | None  # None: the upload does not say
    metadata: Metadata
    files: tuple[tuple[str, str | None], ...]
    size_bytes: int
    created_by: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    beats: int = 0
    attempts: int = 0
    cancelling: bool = False
    progress: Mapping[str, int] | None = None
    receipt: Mapping[str, object] | None = None
    error: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """How much may wait at once."""

    jobs: int
    size_bytes: int


def _job(row: Row[*tuple[Any, ...]]) -> Job:
    return Job(
        id=row.id,
        state=cast(State, row.state),
        collection=row.collection,
        namespace=row.namespace,
        groups=None if row.groups == "null" else tuple(orjson.loads(row.groups)),
        metadata=orjson.loads(row.metadata),
        files=tuple((uri, media_type) for uri, media_type in orjson.loads(row.files)),
        size_bytes=row.size_bytes,
        created_by=row.created_by,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        worker=row.worker,
        beats=row.beats,
        attempts=row.attempts,
        cancelling=row.cancelling,
        progress=orjson.loads(row.progress),
        receipt=None if row.receipt is None else orjson.loads(row.receipt),
        error=None if row.error is None else orjson.loads(row.error),
    )


# --- taking in -----------------------------------------------------------------------------------------------------


def begin(connection: Connection, job: Job, room: Room) -> None:
    """Note a job whose bytes are to follow. Raises OverloadedError if there is no room."""
    waiting = select(func.count(), func.coalesce(func.sum(jobs.c.size_bytes), 0)).where(jobs.c.state.in_(UNFINISHED))
    number, size_bytes = connection.execute(waiting).one()
    if number >= room.jobs or size_bytes + job.size_bytes > room.size_bytes:
        raise OverloadedError(
            f"{number} jobs with {size_bytes:,} bytes are waiting, and there is room for {room.jobs} with "
            f"{room.size_bytes:,}: send it again later, or without background=true",
            RETRY_AFTER_S,
        )
    forgotten = jobs.c.finished_at < time.time() - KEPT_S
    connection.execute(delete(jobs).where(forgotten))
    connection.execute(
        insert(jobs).values(
            id=job.id,
            state="receiving",
            collection=job.collection,
            namespace=job.namespace,
            groups=to_json(job.groups),
            metadata=to_json(job.metadata),
            files=to_json(job.files),
            size_bytes=job.size_bytes,
            created_by=job.created_by,
            created_at=job.created_at,
            worker=job.worker,
            beats=0,
            attempts=0,
            cancelling=False,
            progress="{}",
        )
    )


def put_block(connection: Connection, id_: str, file: int, block: int, data: bytes) -> None:
    """Keep a piece of a file. Raises NotFoundError if the job was given up meanwhile."""
    row = connection.execute(select(jobs.c.key).where(jobs.c.id == id_, jobs.c.state == "receiving")).one_or_none()
    if row is None:
        raise NotFoundError(_GIVEN_UP)
    connection.execute(insert(job_blocks).values(job_key=row.key, file=file, block=block, data=data))
    connection.execute(update(jobs).where(jobs.c.key == row.key).values(beats=jobs.c.beats + 1))


def enqueue(connection: Connection, id_: str) -> Job:
    """All bytes are there. Raises NotFoundError if the job was given up meanwhile."""
    received = update(jobs).where(jobs.c.id == id_, jobs.c.state == "receiving")
    if connection.execute(received.values(state="queued", worker=None)).rowcount == 0:
        raise NotFoundError(_GIVEN_UP)
    return job(connection, id_)


def discard(connection: Connection, id_: str) -> None:
    """Forget a job whose bytes did not all come."""
    connection.execute(delete(jobs).where(jobs.c.id == id_, jobs.c.state == "receiving"))


# --- looking -------------------------------------------------------------------------------------------------------


def job(connection: Connection, id_: str) -> Job:
    """Raises NotFoundError."""
    found = select(jobs).where(jobs.c.id == id_, jobs.c.state != "receiving")
    row = connection.execute(found).one_or_none()
    if row is None:
        raise no_job(id_)
    return _job(row)


def no_job(id_: str) -> NotFoundError:
    return NotFoundError(f"there is no job {id_!r}: finished ones are kept for a week")


def page(connection: Connection, before: str | None, limit: int) -> tuple[list[Job], str | None]:
    """Jobs, the newest first, and the `before` of the next page (None at the end)."""
    wanted = select(jobs).where(jobs.c.state != "receiving").order_by(jobs.c.key.desc()).limit(limit + 1)
    if before is not None:
        wanted = wanted.where(jobs.c.key < select(jobs.c.key).where(jobs.c.id == before).scalar_subquery())
    rows = connection.execute(wanted).all()
    found = [_job(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


def unfinished(connection: Connection) -> list[Job]:
    """What is being received, waits or runs, in the order of arrival: as many as there is room for."""
    return [
        _job(row) for row in connection.execute(select(jobs).where(jobs.c.state.in_(UNFINISHED)).order_by(jobs.c.key))
    ]


def block(connection: Connection, id_: str, file: int, number: int) -> bytes | None:
    """A piece of a file; None after the last."""
    key = select(jobs.c.key).where(jobs.c.id == id_).scalar_subquery()
    wanted = select(job_blocks.c.data).where(
        job_blocks.c.job_key == key, job_blocks.c.file == file, job_blocks.c.block == number
    )
    data: bytes | None = connection.execute(wanted).scalar_one_or_none()
    return data


# --- working -------------------------------------------------------------------------------------------------------


def take(connection: Connection, worker: str, orphans: Collection[tuple[str, int]]) -> Job | None:
    """The next job, now this worker's; `orphans`: (id, beats) of those whose worker, or sender, is gone.

    What was taken before comes first, so that a namespace's jobs stay in order. Jobs of one that is being dropped wait
    until it is gone: they make it anew.
    """
    found = unfinished(connection)
    for each in found:
        if each.state == "receiving" and (each.id, each.beats) in orphans:
            discard(connection, each.id)
    busy = {
        (each.collection, each.namespace)
        for each in found
        if each.state == "running" and (each.id, each.beats) not in orphans
    } | _being_dropped(connection)
    for state in ("running", "queued"):
        for each in found:
            place = (each.collection, each.namespace)
            is_free = state == "queued" or (each.id, each.beats) in orphans
            if each.state == state and is_free and place not in busy:
                return _take(connection, each, worker)
    return None


def _being_dropped(connection: Connection) -> set[tuple[str, str]]:
    places = select(collections.c.name, namespaces.c.name.label("namespace")).join_from(namespaces, collections)
    return {(row.name, row.namespace) for row in connection.execute(places.where(namespaces.c.dropping))}


def _take(connection: Connection, taken: Job, worker: str) -> Job:
    connection.execute(
        update(jobs)
        .where(jobs.c.id == taken.id)
        .values(
            state="running",
            worker=worker,
            beats=taken.beats + 1,
            attempts=taken.attempts + 1,
            started_at=taken.started_at or time.time(),
        )
    )
    return job(connection, taken.id)


def beat(connection: Connection, id_: str, worker: str, progress: Mapping[str, int]) -> Job | None:
    """Say that the worker is at it, and how far; the job, or None if it is no longer this worker's."""
    mine = (jobs.c.id == id_, jobs.c.state == "running", jobs.c.worker == worker)
    at_it = update(jobs).where(*mine).values(beats=jobs.c.beats + 1, progress=to_json(progress))
    return job(connection, id_) if connection.execute(at_it).rowcount else None


def give_back(connection: Connection, id_: str, worker: str) -> None:
    """Let another do it: this worker stops. The attempt does not count."""
    mine = (jobs.c.id == id_, jobs.c.state == "running", jobs.c.worker == worker)
    queued = {"state": "queued", "worker": None, "attempts": jobs.c.attempts - 1}
    connection.execute(update(jobs).where(*mine).values(queued))


def finish(connection: Connection, id_: str, worker: str, state: Ended, result: Mapping[str, object]) -> bool:
    """End a job and let its bytes go; whether it was still this worker's. `result`: columns to set."""
    mine = (jobs.c.id == id_, jobs.c.state == "running", jobs.c.worker == worker)
    values = {name: to_json(value) for name, value in result.items()}
    ended = update(jobs).where(*mine).values(state=state, finished_at=time.time(), **values)
    if connection.execute(ended).rowcount == 0:
        return False
    _drop_blocks(connection, id_)
    return True


def cancel(connection: Connection, id_: str) -> Job:
    """End a job that waits; tell the worker of one that runs. Raises NotFoundError; ConflictError if it has ended."""
    found = job(connection, id_)
    if found.state in {"succeeded", "failed"}:
        raise ConflictError(f"job {id_!r} has {found.state}: there is nothing left to cancel")
    if found.state == "queued":
        connection.execute(update(jobs).where(jobs.c.id == id_).values(state="cancelled", finished_at=time.time()))
        _drop_blocks(connection, id_)
    elif found.state == "running":
        connection.execute(update(jobs).where(jobs.c.id == id_).values(cancelling=True))
    return job(connection, id_)


def cancel_all(connection: Connection, collection: str, namespace: str) -> None:
    """End what waits for a namespace, or is being received; tell the workers of what runs."""
    of_it = (jobs.c.collection == collection, jobs.c.namespace == namespace)
    connection.execute(delete(jobs).where(*of_it, jobs.c.state == "receiving"))
    ended = update(jobs).where(*of_it, jobs.c.state == "queued").values(state="cancelled", finished_at=time.time())
    for id_ in connection.execute(ended.returning(jobs.c.id)).scalars().all():
        _drop_blocks(connection, id_)
    connection.execute(update(jobs).where(*of_it, jobs.c.state == "running").values(cancelling=True))


def _drop_blocks(connection: Connection, id_: str) -> None:
    key = select(jobs.c.key).where(jobs.c.id == id_).scalar_subquery()
    connection.execute(delete(job_blocks).where(job_blocks.c.job_key == key))
