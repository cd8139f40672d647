"""Jobs and their workers: killed at each place a job ends once, a worker that hangs is outrun, one that kills is given
up, and what an engine refuses for a while is tried again."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexers.base import IndexUnavailableError
from indexers.sources import Source, Upload
from server import catalog_changes, catalog_jobs, jobs
from server.base import OverloadedError
from server.bell import LocalBell
from server.build import Desk
from server.catalog_jobs import Job, Room
from server.group import BeforeCommit
from server.ingest import OnProgress, Receipt, Target
from server.jobs import Jobs
from tests.desks import open_desk, text_file
from tests.live.app import new_app

TARGET = Target("docs", "default")


def test_killed_at_each_place_a_job_ends_once(tmp_path: Path) -> None:
    """The server is killed amid the job, and when all is done but the catalog does not know."""
    files = {f"{n}.txt": f"text number {n} " * 20 for n in range(20)}
    first = new_app(tmp_path, {"fault": "commit.applied:2", "commit_documents": 5})
    first.server.start()
    id_ = first.send(files)
    first.dies()
    again = new_app(tmp_path, {"fault": "job.done", "commit_documents": 5})
    again.server.launch()
    again.dies()
    last = new_app(tmp_path, {})
    with last.server:
        job = last.ended(id_)
        with last.http() as http:
            found = http.get("/v1/documents", params={"limit": 100}).json()["data"]
    assert (job["state"], job["attempts"], job["receipt"]["unchanged"]) == ("succeeded", 3, 20)
    assert {document["uri"] for document in found} == set(files)
    with sqlite3.connect(last.data_dir / "catalog.sqlite") as catalog:
        assert catalog.execute("SELECT count(*) FROM lives").fetchone() == (20,), "each was committed once"
        assert catalog.execute("SELECT count(*) FROM job_blocks").fetchone() == (0,)
    catalog.close()


# --- several processes, here as shares in the jobs of one catalog --------------------------------------------------


@dataclass
class Ingest:
    """A desk's ingestion, which can be held up, or refused by an engine."""

    desk: Desk
    refusals: int = 0
    runs: int = 0
    gate: asyncio.Event | None = None

    async def __call__(
        self, sources: Sequence[Source | Upload], target: Target, note: OnProgress, check: BeforeCommit
    ) -> Receipt:
        self.runs += 1
        if self.refusals:
            self.refusals -= 1
            raise IndexUnavailableError("the engine is away")

        async def before_commit() -> None:
            if self.gate is not None:
                await self.gate.wait()
            await check()

        return await self.desk.pipeline.ingest(sources, target, note, before_commit)


class Shares:
    """Shares in the jobs of one catalog, as processes have them."""

    def __init__(self, desk: Desk, opened: AsyncExitStack, room: Room) -> None:
        self.desk, self.opened, self.room = desk, opened, room

    def new(self, ingest: Ingest | None = None, *, gone_s: float = 0.5) -> Jobs:
        ingest = ingest or Ingest(self.desk)
        share = Jobs(self.desk.catalog, ingest, bell=LocalBell(), room=self.room, gone_s=gone_s)
        self.opened.push_async_callback(share.close)
        return share

    async def ended(self, id_: str, within_s: float = 20) -> Job:
        async with asyncio.timeout(within_s):
            while (job := await self.desk.jobs.get(id_)).finished_at is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return job

    async def text(self, uri: str) -> str:
        state = await self.desk.catalog.namespace("docs", "default")
        found = await self.desk.catalog.lookup(state.id, [uri])
        return await self.desk.catalog.text(found[uri].id)


@pytest.fixture
async def shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shares]:
    monkeypatch.setattr(jobs, "BEAT_S", 0.05)
    monkeypatch.setattr(jobs, "LOOK_S", 0.1)
    monkeypatch.setattr(jobs, "AGAIN_S", 0.01)
    async with AsyncExitStack() as opened:
        desk = await opened.enter_async_context(open_desk(tmp_path))
        yield Shares(desk, opened, Room(10, 10**6))


@asynccontextmanager
async def hung(shares: Shares, text: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A job whose worker stands still before its commit, and neither beats nor ends; set the event to let it go on."""
    gate = asyncio.Event()
    share = shares.new(Ingest(shares.desk, gate=gate))

    async def take() -> None:
        worker = "who hangs"
        job = await shares.desk.catalog.write(catalog_jobs.take, worker, set())
        assert job is not None

        async def check() -> None:
            present = await shares.desk.catalog.write(catalog_jobs.beat, job.id, worker, {})
            if present is None:
                raise asyncio.CancelledError

        uploads = [text_file("a.txt", text)]
        await share._ingest(uploads, TARGET, lambda _: None, check)

    id_ = (await share.add([text_file("a.txt", text)], TARGET, "k")).id
    hanging = asyncio.create_task(take())
    try:
        yield id_, gate
    finally:
        gate.set()
        await asyncio.wait({hanging})


async def test_a_worker_that_stands_still_is_outrun_and_cannot_commit_after(shares: Shares) -> None:
    async with hung(shares, "the older text") as (older, gate):
        other = shares.new(gone_s=0.5)
        newer = (await other.add([text_file("a.txt", "the newer text")], TARGET, "k")).id
        await asyncio.sleep(0.1)
        assert (await other.get(newer)).state == "queued"
        began = time.monotonic()
        other.start(2)
        assert (await shares.ended(older)).attempts == 2
        assert time.monotonic() - began >= 0.5
        assert (await shares.ended(newer)).state == "succeeded"
        gate.set()
        await asyncio.sleep(0.2)
    assert await shares.text("a.txt") == "the newer text", "the one that hung wrote nothing over it"


async def test_one_that_beats_is_left_its_job(shares: Shares) -> None:
    gate = asyncio.Event()
    slow = shares.new(first := Ingest(shares.desk, gate=gate))
    id_ = (await slow.add([text_file("a.txt", "text")], TARGET, "k")).id
    slow.start(1)
    async with asyncio.timeout(10):
        while not first.runs:  # noqa: ASYNC110 - polling is all that a test needs
            await asyncio.sleep(0.01)
    ingest = Ingest(shares.desk)
    shares.new(ingest, gone_s=0.5).start(1)
    await asyncio.sleep(1.5)
    gate.set()
    job = await shares.ended(id_)
    assert (job.state, job.attempts, ingest.runs) == ("succeeded", 1, 0)


async def test_shares_do_each_job_once(shares: Shares) -> None:
    ingests = [Ingest(shares.desk) for _ in range(3)]
    several = [shares.new(ingest) for ingest in ingests]
    targets = [Target("docs", f"n{n % 5}") for n in range(10)]
    ids = [(await several[0].add([text_file(f"{n}.txt", "text")], targets[n], "k")).id for n in range(10)]
    for share in several:
        share.start(2)
    done = [await shares.ended(id_) for id_ in ids]
    assert [(job.state, job.attempts) for job in done] == [("succeeded", 1)] * 10
    assert sum(ingest.runs for ingest in ingests) == 10


async def test_what_an_engine_refuses_for_a_while_is_tried_again(shares: Shares) -> None:
    share = shares.new(Ingest(shares.desk, refusals=3))
    share.start(1)
    job = await shares.ended((await share.add([text_file("a.txt", "text")], TARGET, "k")).id)
    assert (job.state, job.attempts) == ("succeeded", 1)


async def test_what_it_refuses_for_good_fails_with_the_reason(shares: Shares) -> None:
    share = shares.new(Ingest(shares.desk, refusals=1000))
    share.start(1)
    job = await shares.ended((await share.add([text_file("a.txt", "text")], TARGET, "k")).id)
    assert job.state == "failed"
    assert job.error == {"code": "index_unavailable", "message": "the engine is away"}


async def test_a_job_that_ends_its_worker_each_time_is_given_up(shares: Shares) -> None:
    share = shares.new(gone_s=0)
    id_ = (await share.add([text_file("a.txt", "text")], TARGET, "k")).id
    for turn in range(jobs.MOST_ATTEMPTS):
        found = await shares.desk.catalog.read(catalog_jobs.unfinished)
        orphans = {(job.id, job.beats) for job in found if job.state == "running"}
        assert await shares.desk.catalog.write(catalog_jobs.take, f"who dies at turn {turn}", orphans)
    share.start(1)
    job = await shares.ended(id_)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


async def test_cancelling_a_job_whose_worker_is_gone(shares: Shares) -> None:
    ingest = Ingest(shares.desk)
    share = shares.new(ingest, gone_s=0.3)
    id_ = (await share.add([text_file("a.txt", "text")], TARGET, "k")).id
    await shares.desk.catalog.write(catalog_jobs.take, "who died", set())
    assert (await share.cancel(id_)).state == "running"
    share.start(1)
    assert (await shares.ended(id_)).state == "cancelled"
    assert ingest.runs == 0


async def test_bytes_whose_sender_died_are_let_go(shares: Shares) -> None:
    share = shares.new(gone_s=0.2)
    half = Job("job_half", "receiving", "docs", "default", (), {}, (("a.txt", None),), 500_000, "k", 1.0, worker="died")
    await shares.desk.catalog.write(catalog_jobs.begin, half, shares.room)
    await shares.desk.catalog.write(catalog_jobs.put_block, half.id, 0, 0, b"half of it")
    with pytest.raises(OverloadedError, match="1 jobs with 500,000 bytes are waiting"):
        await share.add([text_file("b.txt", "x" * 600_000)], TARGET, "k")
    share.start(1)
    async with asyncio.timeout(10):
        while await shares.desk.catalog.read(catalog_jobs.unfinished):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await shares.desk.catalog.read(catalog_jobs.block, half.id, 0, 0) is None
    await share.add([text_file("b.txt", "x" * 600_000)], TARGET, "k")


async def test_what_waits_for_a_namespace_that_is_dropped_ends_with_it(shares: Shares) -> None:
    """Else it would make anew what somebody wanted gone; another namespace's jobs go on."""
    await shares.desk.pipeline.ingest([text_file("a.txt", "text")], TARGET)
    gate = asyncio.Event()
    share = shares.new(Ingest(shares.desk, gate=gate))
    ids = [(await share.add([text_file(f"{n}.txt", "text")], TARGET, "k")).id for n in range(2)]
    other = (await share.add([text_file("o.txt", "text")], Target("docs", "other"), "k")).id
    share.start(1)
    async with asyncio.timeout(10):
        while not ((await share.get(ids[0])).progress or {}).get("read"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await shares.desk.pipeline.drop("docs", "default")
    gate.set()
    assert [(await shares.ended(id_)).state for id_ in ids] == ["cancelled"] * 2
    assert await shares.desk.catalog.read(catalog_jobs.block, ids[1], 0, 0) is None
    assert (await shares.ended(other)).state == "succeeded"
    assert [state.namespace.name for state in await shares.desk.catalog.namespaces("docs")] == ["other"]


async def test_one_taken_before_the_drop_does_not_make_the_namespace_anew(shares: Shares) -> None:
    """Its worker died; who takes it next sees that it was cancelled."""
    await shares.desk.pipeline.ingest([text_file("a.txt", "text")], TARGET)
    share = shares.new(ingest := Ingest(shares.desk), gone_s=0)
    id_ = (await share.add([text_file("b.txt", "text")], TARGET, "k")).id
    assert await shares.desk.catalog.write(catalog_jobs.take, "who dies", set())
    await shares.desk.pipeline.drop("docs", "default")
    share.start(1)
    assert (await shares.ended(id_)).state == "cancelled"
    assert (ingest.runs, await shares.desk.catalog.namespaces("docs")) == (0, [])


async def test_what_is_sent_during_a_drop_waits_for_its_end(shares: Shares) -> None:
    await shares.desk.pipeline.ingest([text_file("a.txt", "older text")], TARGET)
    state = await shares.desk.catalog.namespace("docs", "default")
    await shares.desk.catalog.write(catalog_changes.begin_drop, state)
    share = shares.new()
    share.start(1)
    id_ = (await share.add([text_file("b.txt", "newer text")], TARGET, "k")).id
    await asyncio.sleep(0.5)
    assert (await share.get(id_)).state == "queued"
    await shares.desk.writer.recover()
    assert (await shares.ended(id_)).state == "succeeded"
    assert await shares.text("b.txt") == "newer text"


async def test_large_files_come_back_byte_for_byte(shares: Shares, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(jobs, "IN_MEMORY_BYTES", 20_000)
    words = "".join(f"sentence {n} of a large file. " for n in range(2_000))
    share = shares.new()
    small = [text_file(f"{n}.txt", f"small {n}") for n in range(3)]
    id_ = (await share.add([*small, text_file("large.txt", words), text_file("empty.txt", "")], TARGET, "k")).id
    share.start(1)
    assert (await shares.ended(id_, 60)).state == "succeeded"
    assert await shares.text("large.txt") == words.strip()
    assert await shares.text("2.txt") == "small 2"
