"""Uploads that go on after their answer: their bytes wait in the catalog, workers ingest them, and a kill loses none.

A job is taken again when its worker is gone; ingestion is idempotent, and only who has the job may end it.
"""

import asyncio
import logging
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from typing import BinaryIO, cast

import orjson

from indexers.sources import Source, Upload
from server import catalog_jobs
from server.base import CatalogUnavailableError, ServerError
from server.bell import Bell
from server.catalog import Catalog
from server.catalog_jobs import Ended, Job, Room
from server.errors import failure_of, rule_of
from server.faults import reach
from server.group import BeforeCommit
from server.ingest import OnProgress, Receipt, Tally, Target
from server.schemas.documents import receipt_reply

BLOCK_BYTES = 2**20
IN_MEMORY_BYTES = 2**20  # of a file that is worked on; a larger one lies on the disk
BEAT_S = 1.0
LOOK_S = 2.0  # an idle worker looks without having been told
GONE_S = 15.0  # without a beat, seen by another process, a worker counts as dead
MOST_ATTEMPTS = 5  # a job that ends its worker each time is no longer tried
AGAIN = frozenset({429, 503, 504})  # what an engine or model answers that may be well again
AGAIN_S, AGAIN_MOST_S, AGAIN_TIMES = 1.0, 30.0, 8  # 91 s in all

Ingest = Callable[[Sequence[Source | Upload], Target, OnProgress, BeforeCommit], Awaitable[Receipt]]
Outcome = tuple[Ended, dict[str, Mapping[str, object]]]  # how a job ends, and columns to set
OnReceipt = Callable[[Receipt], None]

log = logging.getLogger("refdesk.jobs")


class Jobs:
    """A process's share in the jobs. `counts` are of those it ended, by state; `on_receipt` hears of each receipt."""

    def __init__(self, catalog: Catalog, ingest: Ingest, *, bell: Bell, room: Room, gone_s: float) -> None:
        """`gone_s`: how long another worker may be silent; 0 if no other process has this catalog."""
        self._catalog, self._ingest, self._bell, self._room = catalog, ingest, bell, room
        self._gone_s = gone_s
        self._mine: set[str] = set()  # names under which this process is at something
        self._seen: dict[str, tuple[int, float]] = {}  # job → its beats, and since when they are these
        self._workers: list[asyncio.Task[None]] = []
        self.counts: Counter[Ended] = Counter()
        self.waiting = self.running = 0  # when a worker last looked
        self.on_receipt: OnReceipt = lambda _: None

    # --- what is asked ---------------------------------------------------------------------------------------------

    async def add(self, uploads: Sequence[Upload], target: Target, created_by: str) -> Job:
        """Take uploads in; they are durable when this returns. Raises OverloadedError if too many wait."""
        sizes = [await asyncio.to_thread(upload.file.seek, 0, 2) for upload in uploads]
        job = Job(
            id=f"job_{secrets.token_hex(12)}",
            state="receiving",
            collection=target.collection,
            namespace=target.namespace,
            groups=target.groups,
            metadata=target.metadata,
            files=tuple((upload.uri, upload.media_type) for upload in uploads),
            size_bytes=sum(sizes),
            created_by=created_by,
            created_at=time.time(),
            worker=secrets.token_hex(8),
        )
        self._mine.add(worker := job.worker or "")
        try:
            await self._catalog.write(catalog_jobs.begin, job, self._room)
            for number, upload in enumerate(uploads):
                await self._keep(job.id, number, upload.file)
            job = await self._catalog.write(catalog_jobs.enqueue, job.id)
        except BaseException:
            with suppress(ServerError):
                await asyncio.shield(self._catalog.write(catalog_jobs.discard, job.id))
            raise
        finally:
            self._mine.discard(worker)
        await self._bell.ring()
        return job

    async def _keep(self, id_: str, number: int, file: BinaryIO) -> None:
        await asyncio.to_thread(file.seek, 0)
        for block in count():
            data = await asyncio.to_thread(file.read, BLOCK_BYTES)
            if not data:
                return
            await self._catalog.write(catalog_jobs.put_block, id_, number, block, data)

    async def get(self, id_: str) -> Job:
        """Raises NotFoundError."""
        return await self._catalog.read(catalog_jobs.job, id_)

    async def page(self, before: str | None, limit: int) -> tuple[list[Job], str | None]:
        """Jobs, the newest first, and the `before` of the next page."""
        return await self._catalog.read(catalog_jobs.page, before, limit)

    async def cancel(self, id_: str) -> Job:
        """End a job that waits; one that runs ends within about a second, and what it has committed stays.

        Raises NotFoundError; ConflictError if it has ended.
        """
        return await self._catalog.write(catalog_jobs.cancel, id_)

    # --- workers ---------------------------------------------------------------------------------------------------

    def start(self, workers: int) -> None:
        """Work from now on, until `close`."""
        self._workers = [asyncio.create_task(self._work_always()) for _ in range(workers)]

    async def close(self) -> None:
        """Stop working; what is running goes back to where another, or the next start, takes it."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work_always(self) -> None:
        while True:
            try:
                while await self._work_once():
                    pass
            except Exception as exc:
                self._seen.clear()  # who could not be looked at has not been seen to stand still
                failure_of(exc)  # which logs it
            await self._bell.wait(LOOK_S)

    async def _work_once(self) -> bool:
        """Do the next job; whether there was one."""
        self._mine.add(worker := secrets.token_hex(8))
        try:
            job = await self._next(worker)
            if job is not None:
                await self._work(job, worker)
            return job is not None
        finally:
            self._mine.discard(worker)

    async def _next(self, worker: str) -> Job | None:
        unfinished = await self._catalog.read(catalog_jobs.unfinished)
        self.waiting = sum(job.state == "queued" for job in unfinished)
        self.running = sum(job.state == "running" for job in unfinished)
        orphans = self._orphans(unfinished)
        if not self.waiting and not orphans:
            return None
        return await self._catalog.write(catalog_jobs.take, worker, orphans)

    def _orphans(self, unfinished: Sequence[Job]) -> set[tuple[str, int]]:
        """Jobs that others were at and whose beats have stood still for as long as this process saw them."""
        now = time.monotonic()
        others = [job for job in unfinished if job.worker is not None and job.worker not in self._mine]
        seen = {job.id: self._seen.get(job.id, (job.beats, now)) for job in others}
        self._seen = {job.id: seen[job.id] if seen[job.id][0] == job.beats else (job.beats, now) for job in others}
        return {(id_, beats) for id_, (beats, since) in self._seen.items() if now - since >= self._gone_s}

    async def _work(self, job: Job, worker: str) -> None:
        """Do a job to its end, or until it is cancelled, taken by another, or this process stops."""
        tally = Tally(sources=len(job.files))
        reach("job.taken")

        async def beat() -> Job | None:
            try:
                return await self._catalog.write(catalog_jobs.beat, job.id, worker, progress(tally))
            except CatalogUnavailableError:
                return job  # nobody else can take it meanwhile

        async def before_commit() -> None:
            present = await beat()
            if present is None or present.cancelling:
                await asyncio.Event().wait()  # to be stopped below

        ingesting = asyncio.ensure_future(self._run(job, tally, before_commit))
        try:
            present: Job | None = job
            while present is not None and not present.cancelling and not ingesting.done():
                await asyncio.wait({ingesting}, timeout=BEAT_S)
                present = await beat()
        except asyncio.CancelledError:
            await _stop(ingesting)
            with suppress(ServerError):
                await self._catalog.write(catalog_jobs.give_back, job.id, worker)
            await self._bell.ring()
            raise
        if present is None:
            log.warning("job %s was taken by another worker", job.id)
            await _stop(ingesting)
        elif not ingesting.done():
            await _stop(ingesting)
            await self._finish(job.id, worker, ("cancelled", {"progress": progress(tally)}))
        else:
            await self._finish(job.id, worker, ingesting.result())

    async def _run(self, job: Job, tally: Tally, before_commit: BeforeCommit) -> Outcome:
        """How a job ends, and what is to be noted of it. Tries again what an engine that is away refused."""

        def note(present: Tally) -> None:
            for name in PROGRESS:
                setattr(tally, name, getattr(present, name))
            tally.failures = present.failures

        target = Target(job.collection, job.namespace, job.groups, job.metadata)
        error: Exception | None = None
        if job.attempts > MOST_ATTEMPTS:
            return _failed("worker_lost", f"its worker ended {MOST_ATTEMPTS} times: the cause is in the servers' logs")
        for attempt in range(AGAIN_TIMES):
            try:
                with ExitStack() as opened:
                    uploads = [await self._upload(job, number, opened) for number in range(len(job.files))]
                    await before_commit()  # an ingestion makes its namespace, which may have been dropped since
                    receipt = await self._ingest(uploads, target, note, before_commit)
                note(receipt.tally)
                return self._ended(receipt)
            except Exception as exc:
                error = exc
            if rule_of(error).status not in AGAIN or attempt == AGAIN_TIMES - 1:
                break
            await asyncio.sleep(min(AGAIN_MOST_S, AGAIN_S * 2**attempt))
        assert error is not None
        failure = failure_of(error)
        return _failed(failure.code, failure.message, tally)

    def _ended(self, receipt: Receipt) -> Outcome:
        self.on_receipt(receipt)
        tally = receipt.tally
        if tally.failures and not (tally.added or tally.replaced or tally.patched or tally.unchanged):
            failure = failure_of(tally.failures[0])
            return _failed(failure.code, failure.message, tally)
        told: dict[str, object] = orjson.loads(receipt_reply(receipt))
        return "succeeded", {"receipt": told, "progress": progress(tally)}

    async def _upload(self, job: Job, number: int, opened: ExitStack) -> Upload:
        """A file of a job, as it was sent."""
        uri, media_type = job.files[number]
        file = opened.enter_context(tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES))  # noqa: SIM115 - the stack's
        for block in count():
            data = await self._catalog.read(catalog_jobs.block, job.id, number, block)
            if data is None:
                break
            await asyncio.to_thread(file.write, data)
        return Upload(uri, cast(BinaryIO, file), media_type)

    async def _finish(self, id_: str, worker: str, outcome: Outcome) -> None:
        """Note the end, for as long as it takes."""
        reach("job.done")
        state, result = outcome
        pause_s = AGAIN_S
        while True:
            try:
                if await self._catalog.write(catalog_jobs.finish, id_, worker, state, result):
                    self.counts[state] += 1
                return
            except CatalogUnavailableError as exc:
                log.warning("job %s is done, and the catalog does not take that: %s", id_, exc)
            await asyncio.sleep(pause_s)
            pause_s = min(AGAIN_MOST_S, 2 * pause_s)


PROGRESS = ("sources", "read", "bytes", "added", "replaced", "patched", "unchanged", "chunks", "tokens")


def progress(tally: Tally) -> dict[str, int]:
    """The counts of an ingestion so far."""
    return {**{name: getattr(tally, name) for name in PROGRESS}, "failed": len(tally.failures)}


def _failed(code: str, message: str, tally: Tally | None = None) -> Outcome:
    result: dict[str, Mapping[str, object]] = {"error": {"code": code, "message": message}}
    return "failed", {**result, "progress": progress(tally)} if tally is not None else result


async def _stop(task: "asyncio.Future[Outcome]") -> None:
    task.cancel()
    await asyncio.wait({task})
