"""A real Qdrant killed, stopped, hanging, slow, refusing and full under load: nothing is lost, nothing half-visible,
and recovery needs no restart of ours."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexers.base import IndexUnavailableError
from indexers.legs import PairedIndex
from indexers.memory import MemoryIndex
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from server.repair import repair
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.corpus import prepare
from tests.live.legs import LATE_S, TIMEOUT_S, Work, ask, both_answer, found, until
from tests.live.proxy import Proxy
from tests.live.qdrant import Node, new_prefix, node


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of this module's own, which it may kill."""
    with node(tmp_path_factory.mktemp("qdrant")) as started:
        yield started


@pytest.fixture
def proxy(own_node: Node) -> Iterator[Proxy]:
    with Proxy(own_node.reached.grpc_port) as running:
        yield running


@pytest.fixture
async def bench(own_node: Node, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Bench]:
    """Its dense leg is Qdrant behind the proxy."""
    reached = replace(own_node.reached, grpc_port=proxy.port, timeout_s=5)
    index = PairedIndex(QdrantIndex.on(reached.client(), QdrantOptions(prefix=new_prefix())), MemoryIndex())
    opened = await Bench.open(Sqlite(tmp_path / "catalog.sqlite", readers=2), index)
    yield opened
    await opened.close()
    await index.close()


def text_leg(bench: Bench) -> MemoryIndex:
    assert isinstance(bench.index, PairedIndex)
    assert isinstance(bench.index.text, MemoryIndex)
    return bench.index.text


@pytest.mark.parametrize("how", ["killed", "stopped", "hanging"])
async def test_under_load_it_goes_away_and_comes_back(bench: Bench, own_node: Node, how: str) -> None:
    work, process = Work(bench, text_leg(bench)), own_node.process
    away, back = {
        "killed": (process.kill, process.start),
        "stopped": (process.stop, process.start),
        "hanging": (process.pause, process.resume),
    }[how]
    async with work.going_on():
        await until(lambda: work.newest >= 5 and "dense" in work.legs_seen)
        await asyncio.to_thread(away)
        await until(lambda: bool(work.degraded and (work.failures or how == "hanging")))
        await asyncio.to_thread(back)
        await work.goes_on()
    assert work.legs_seen == {"dense", "bm25"}
    assert all(line.startswith("dense leg of docs:default") for line in work.degraded), work.degraded
    assert all("Qdrant" in str(failure) for failure in work.failures)
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


async def test_connections_cut_under_load(bench: Bench, proxy: Proxy) -> None:
    work = Work(bench, text_leg(bench))
    async with work.going_on():
        for _ in range(10):
            await asyncio.sleep(0.2)
            proxy.cut()
        await work.goes_on()
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


async def test_hanging_it_is_waited_for_no_longer_than_the_deadline(bench: Bench, own_node: Node) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    own_node.process.pause()
    try:
        started = time.monotonic()
        result = await ask(bench)
        assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + LATE_S
        assert result.degraded == (f"dense leg of docs:default: no answer within {TIMEOUT_S:g} s",)
        assert found(result, "bm25")
        committing = asyncio.create_task(bench.commit(prepare("b.txt", "text of b")))
        await asyncio.sleep(1)
        assert not committing.done()
        assert (await bench.catalog.namespace("docs", "default")).commit == 1
    finally:
        own_node.process.resume()
    assert await committing == 2
    assert len(await both_answer(bench)) == 2


async def test_slow_it_is_done_without_and_used_again_when_it_is_fast(bench: Bench, proxy: Proxy) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    proxy.delay_s = 3 * TIMEOUT_S
    result = await ask(bench)
    assert (found(result, "dense"), len(result.degraded)) == (None, 1)
    assert found(result, "bm25")
    proxy.delay_s = 0.01
    await both_answer(bench)


async def test_a_client_that_leaves_takes_no_connection_with_it(bench: Bench, proxy: Proxy) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    proxy.delay_s = 30
    leaving = [asyncio.create_task(ask(bench)) for _ in range(50)]
    await asyncio.sleep(0.3)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    proxy.delay_s = 0
    proxy.cut()  # what was asked is still on its way
    await both_answer(bench)


async def test_refusing_connections(bench: Bench, proxy: Proxy) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    proxy.refuses = True
    proxy.cut()
    started = time.monotonic()
    result = await ask(bench, timeout_s=LATE_S)
    assert "Qdrant cannot be reached" in result.degraded[0]
    assert "qdrant_url" in result.degraded[0]
    assert time.monotonic() - started < LATE_S  # nobody waits for the deadline
    with pytest.raises(IndexUnavailableError, match="qdrant_url"):
        await bench.commit(prepare("b.txt", "text of b"))
    proxy.refuses = False
    assert len(await both_answer(bench)) == 1
    assert await bench.commit(prepare("b.txt", "text of b")) == 2
    assert len(await both_answer(bench)) == 2
