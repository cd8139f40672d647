"""Either leg of a real server killed, stopped, hanging, slow or refusing under load: nothing is lost, nothing
half-visible, and recovery needs no restart of ours."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from indexers.base import IndexUnavailableError
from indexers.legs import Leg, PairedIndex
from indexers.memory import MemoryIndex
from indexers.opensearch import OpenSearchIndex
from indexers.opensearch_client import Access
from indexers.opensearch_places import Layout
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from server.repair import repair
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.corpus import prepare
from tests.live.legs import LATE_S, TIMEOUT_S, Work, ask, both_answer, found, until
from tests.live.opensearch import opensearch
from tests.live.proxy import Proxy
from tests.live.qdrant import new_prefix, node
from tests.live.servers import Server

REQUEST_S = 5  # of either client


@dataclass(frozen=True)
class Tried:
    """A real server that the tests may end, as one leg of an index whose other leg is in memory and stays well."""

    leg: str
    name: str  # as errors call it
    setting: str  # which leads to it
    server: Server
    proxy: Proxy
    open: Callable[[], PairedIndex]

    def sound(self, bench: Bench) -> Leg:
        assert isinstance(bench.index, PairedIndex)
        return bench.index.text if self.leg == "dense" else bench.index.dense

    @property
    def other(self) -> str:
        return "bm25" if self.leg == "dense" else "dense"


@contextmanager
def tried_opensearch(folder: Path) -> Iterator[Tried]:
    with opensearch(folder) as started, Proxy.before(started.url) as proxy:

        def open_() -> PairedIndex:
            layout = Layout(f"t{uuid4().hex[:8]}", replicas=0)
            return PairedIndex(MemoryIndex(), OpenSearchIndex.connect(Access([proxy.url], timeout_s=REQUEST_S), layout))

        yield Tried("bm25", "OpenSearch", "opensearch_urls", started.server, proxy, open_)


@contextmanager
def tried_qdrant(folder: Path) -> Iterator[Tried]:
    with node(folder) as started, Proxy(started.reached.grpc_port) as proxy:

        def open_() -> PairedIndex:
            reached = replace(started.reached, grpc_port=proxy.port, timeout_s=REQUEST_S)
            return PairedIndex(QdrantIndex.on(reached.client(), QdrantOptions(prefix=new_prefix())), MemoryIndex())

        yield Tried("dense", "Qdrant", "qdrant_url", started.process, proxy, open_)


@pytest.fixture(scope="module", params=[tried_opensearch, tried_qdrant], ids=["opensearch", "qdrant"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    with request.param(tmp_path_factory.mktemp("leg")) as started:
        yield started


@pytest.fixture
def tried(server: Tried) -> Iterator[Tried]:
    yield server
    server.proxy.refuses, server.proxy.delay_s = False, 0.0


@pytest.fixture
async def bench(tried: Tried, tmp_path: Path) -> AsyncIterator[Bench]:
    index = tried.open()
    opened = await Bench.open(Sqlite(tmp_path / "catalog.sqlite", readers=2), index)
    yield opened
    await opened.close()
    await index.close()


@pytest.mark.parametrize("how", ["killed", "stopped", "hanging"])
async def test_under_load_it_goes_away_and_comes_back(bench: Bench, tried: Tried, how: str) -> None:
    work, server = Work(bench, tried.sound(bench)), tried.server
    away, back = {
        "killed": (server.kill, server.start),
        "stopped": (server.stop, server.start),
        "hanging": (server.pause, server.resume),
    }[how]
    async with work.going_on():
        await until(lambda: work.newest >= 5 and tried.leg in work.legs_seen)
        await asyncio.to_thread(away)
        await until(lambda: bool(work.degraded and (work.failures or how == "hanging")))
        await asyncio.to_thread(back)
        await work.goes_on()
    assert work.legs_seen == {"dense", "bm25"}
    assert all(line.startswith(f"{tried.leg} leg of docs:default") for line in work.degraded), work.degraded
    assert all(tried.name in str(failure) for failure in work.failures)
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


async def test_connections_cut_under_load(bench: Bench, tried: Tried) -> None:
    work = Work(bench, tried.sound(bench))
    async with work.going_on():
        for _ in range(10):
            await asyncio.sleep(0.2)
            tried.proxy.cut()
        await work.goes_on()
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


async def test_hanging_it_is_waited_for_no_longer_than_the_deadline(bench: Bench, tried: Tried) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    tried.server.pause()
    try:
        started = time.monotonic()
        result = await ask(bench)
        assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + LATE_S
        assert result.degraded == (f"{tried.leg} leg of docs:default: no answer within {TIMEOUT_S:g} s",)
        assert found(result, tried.other)
        committing = asyncio.create_task(bench.commit(prepare("b.txt", "text of b")))
        await asyncio.sleep(1)
        assert not committing.done()
        assert (await bench.catalog.namespace("docs", "default")).commit == 1
    finally:
        tried.server.resume()
    assert await committing == 2
    assert len(await both_answer(bench)) == 2


async def test_slow_it_is_done_without_and_used_again_when_it_is_fast(bench: Bench, tried: Tried) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    tried.proxy.delay_s = 3 * TIMEOUT_S
    result = await ask(bench)
    assert (found(result, tried.leg), len(result.degraded)) == (None, 1)
    assert found(result, tried.other)
    tried.proxy.delay_s = 0.01
    await both_answer(bench)


async def test_a_client_that_leaves_takes_no_connection_with_it(bench: Bench, tried: Tried) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    tried.proxy.delay_s = 30
    leaving = [asyncio.create_task(ask(bench)) for _ in range(50)]
    await asyncio.sleep(0.3)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    tried.proxy.delay_s = 0
    tried.proxy.cut()  # what was asked is still on its way
    await both_answer(bench)


async def test_refusing_connections(bench: Bench, tried: Tried) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    tried.proxy.refuses = True
    tried.proxy.cut()
    started = time.monotonic()
    result = await ask(bench, timeout_s=LATE_S)
    assert time.monotonic() - started < LATE_S  # nobody waits for the deadline
    assert tried.name in result.degraded[0]
    assert tried.setting in result.degraded[0]
    with pytest.raises(IndexUnavailableError, match=tried.setting):
        await bench.commit(prepare("b.txt", "text of b"))
    tried.proxy.refuses = False
    assert len(await both_answer(bench)) == 1
    assert await bench.commit(prepare("b.txt", "text of b")) == 2
    assert len(await both_answer(bench)) == 2
