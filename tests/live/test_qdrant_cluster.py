"""Three nodes of Qdrant, each shard on two of them: one is killed under load, searches and writes go on, and what it
missed it has when it is back."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from indexers.legs import PairedIndex
from indexers.memory import MemoryIndex
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from server.repair import repair
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.live.legs import SETTLED_S, Work, all_ids, both_answer, until
from tests.live.qdrant import Node, cluster

REPLICATED = QdrantOptions(shards=3, replicas=2, write_consistency=1)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with cluster(tmp_path_factory.mktemp("cluster"), 3) as started:
        yield started


@pytest.fixture
async def bench(nodes: list[Node], tmp_path: Path) -> AsyncIterator[Bench]:
    """Its dense leg asks the first node."""
    dense = QdrantIndex.on(nodes[0].reached.client(), REPLICATED)
    index = PairedIndex(dense, MemoryIndex())
    opened = await Bench.open(Sqlite(tmp_path / "catalog.sqlite", readers=2), index)
    yield opened
    await opened.close()
    await index.close()


def replicas(asked: Node, name: str) -> dict[tuple[int, int], str]:
    """(shard, peer) → its state, as a node sees it."""
    with urlopen(f"{asked.reached.url}/collections/{name}/cluster", timeout=30) as answer:
        said = json.load(answer)["result"]
    found = {(each["shard_id"], said["peer_id"]): each["state"] for each in said["local_shards"]}
    return found | {(each["shard_id"], each["peer_id"]): each["state"] for each in said["remote_shards"]}


async def all_active(asked: Node, name: str) -> None:
    async with asyncio.timeout(SETTLED_S):
        while set((await asyncio.to_thread(replicas, asked, name)).values()) != {"Active"}:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.2)


async def test_a_node_is_killed_under_load_and_comes_back(bench: Bench, nodes: list[Node]) -> None:
    assert isinstance(bench.index, PairedIndex)
    work, lost = Work(bench, bench.index.text), nodes[2].process
    async with work.going_on():
        await until(lambda: work.newest >= 5 and "dense" in work.legs_seen)
        layout = replicas(nodes[0], "refdesk-docs-v1")
        assert len(layout) == 6
        assert len({peer for _, peer in layout}) == 3
        await asyncio.to_thread(lost.kill)
        await work.goes_on(10)
        await asyncio.to_thread(lost.start)
        await work.goes_on(5)
        await all_active(nodes[0], "refdesk-docs-v1")
        await work.goes_on(3)
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing

    # what the node that was away holds is what the others hold: it answers alone for a shard whose other copy is gone
    again = QdrantIndex.on(nodes[2].reached.client(), REPLICATED)
    await asyncio.to_thread(nodes[1].process.kill)
    assert await all_ids(again, bench, work.newest) == work.committed[work.newest]
    await asyncio.to_thread(nodes[1].process.start)
    await all_active(nodes[0], "refdesk-docs-v1")
    await both_answer(bench)
    await again.close()
