"""Qdrant and OpenSearch as one index under the gpu profile: a process that dies between the two writes of a commit
leaves nothing that a reader sees, and `refdesk repair` leaves nothing of it at all."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from indexers.base import Namespace, NamespaceNotFoundError, Point, View
from indexers.legs import Leg, PairedIndex
from indexers.opensearch import OpenSearchIndex
from indexers.opensearch_client import Access
from indexers.opensearch_places import Layout
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from indexers.qdrant_server import QdrantServer
from server.base import NamespaceState
from server.catalog import Catalog
from server.repair import repair
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.corpus import embed, prepare
from tests.live.legs import SETTLED_S, all_ids, both_answer
from tests.live.opensearch import OpenSearch
from tests.live.proxy import Proxy
from tests.live.qdrant import new_prefix, remove_collections

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Servers:
    """Both servers, each behind a proxy too, and where the tests' own data is on them."""

    qdrant: QdrantServer
    search_url: str
    dense_proxy: Proxy
    text_proxy: Proxy
    dense_prefix: str
    text_prefix: str

    def pair(self) -> PairedIndex:
        """Both legs, past the proxies."""
        dense = QdrantIndex.on(self.qdrant.client(), QdrantOptions(prefix=self.dense_prefix))
        return PairedIndex(
            dense, OpenSearchIndex.connect(Access([self.search_url]), Layout(self.text_prefix, replicas=0))
        )

    def command(self, data_dir: Path, *words: str) -> "subprocess.Popen[str]":
        """`refdesk …` in a process of its own, whose requests go by the proxies."""
        settings = {
            "profile": "gpu",
            "data_dir": data_dir,
            "embedder": "fake",
            "qdrant_url": self.qdrant.url,
            "qdrant_grpc_port": self.dense_proxy.port,
            "qdrant_prefix": self.dense_prefix,
            "opensearch_urls": self.text_proxy.url,
            "opensearch_prefix": self.text_prefix,
            "opensearch_replicas": 0,
        }
        environment = {**os.environ, **{f"REFDESK_{name.upper()}": str(value) for name, value in settings.items()}}
        command = [sys.executable, "-m", "server", *words]
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE)

    def run(self, data_dir: Path, *words: str) -> None:
        process = self.command(data_dir, *words)
        said, _ = process.communicate(timeout=SETTLED_S)
        assert process.returncode == 0, said


@pytest.fixture
def servers(qdrant_server: QdrantServer, search_node: OpenSearch) -> Iterator[Servers]:
    with ExitStack() as opened:
        dense = opened.enter_context(Proxy(qdrant_server.grpc_port))
        text = opened.enter_context(Proxy.before(search_node.url))
        made = Servers(qdrant_server, search_node.url, dense, text, new_prefix(), f"t{uuid4().hex[:8]}")
        yield made
        asyncio.run(remove_collections(qdrant_server, made.dense_prefix))


@asynccontextmanager
async def reading(servers: Servers, data_dir: Path) -> AsyncIterator[tuple[PairedIndex, NamespaceState]]:
    """As another process reads that the one at work does not know of."""
    index, catalog = servers.pair(), await Catalog.open(data_dir / "catalog.sqlite")
    try:
        yield index, await catalog.namespace("docs", "default")
    finally:
        await catalog.close()
        await index.close()


async def seen(leg: Leg, state: NamespaceState) -> list[str]:
    page, _ = await leg.scan(state.namespace, View(state.commit), None, 1000)
    return sorted(stored.point.id for stored in page)


async def stored(leg: Leg, namespace: Namespace) -> int:
    try:
        await leg.flush(namespace)  # OpenSearch counts what it has refreshed
        return await leg.count(namespace, None)
    except NamespaceNotFoundError:
        return 0


@pytest.mark.parametrize("written", ["dense", "text"])
async def test_a_process_dies_between_the_two_writes(
    servers: Servers, tmp_path: Path, written: Literal["dense", "text"]
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"Of {name}, and of nothing else. " * 40)
    data = tmp_path / "data"
    servers.run(data, "ingest", str(tmp_path / "a.txt"))

    hanging = servers.text_proxy if written == "dense" else servers.dense_proxy
    async with reading(servers, data) as (index, state):
        before = await seen(index.dense, state)
        assert before == await seen(index.text, state) != []
        leg = index.dense if written == "dense" else index.text
        other = index.text if written == "dense" else index.dense
        hanging.hang()
        dying = servers.command(data, "ingest", str(tmp_path / "b.txt"))
        deadline = time.monotonic() + SETTLED_S
        while await stored(leg, state.namespace) == len(before):
            assert time.monotonic() < deadline
            assert dying.poll() is None
            await asyncio.sleep(0.1)
        dying.kill()
        dying.communicate()
        hanging.cut()  # what was on its way never arrives
        hanging.go_on()
        assert await stored(other, state.namespace) == len(before)

    async with reading(servers, data) as (index, state):
        assert await seen(index.dense, state) == await seen(index.text, state) == before
        hits = await index.search_dense(state.namespace, embed("x", 128).vector, View(state.commit), 100)
        assert sorted(hit.id for hit in hits) == before
        hits = await index.search_text(state.namespace, "nothing", View(state.commit), 100)
        assert sorted(hit.id for hit in hits) == before

    servers.run(data, "repair")
    async with reading(servers, data) as (index, state):
        for each in (index.dense, index.text):
            assert await stored(each, state.namespace) == len(before)
            assert await seen(each, state) == before
    servers.run(data, "ingest", str(tmp_path / "b.txt"))
    async with reading(servers, data) as (index, state):
        assert await seen(index.dense, state) == await seen(index.text, state)
        assert len(await seen(index.text, state)) == 2 * len(before)


async def test_repair_finds_what_one_leg_alone_has_or_lacks(servers: Servers, tmp_path: Path) -> None:
    index = servers.pair()
    bench = await Bench.open(Sqlite(tmp_path / "catalog.sqlite", readers=2), index)
    documents = [prepare(f"{name}.txt", f"text of {name}") for name in "abc"]
    await bench.commit(*documents)
    await bench.commit(prepare("c.txt", "another text of c"))
    space = bench.state.namespace
    first = await index.fetch(space, sorted(await all_ids(index.dense, bench, 1)), View(1))
    ids = {point.document_id: id_ for id_, point in first.items()}
    a, b, c = (ids[document.id] for document in documents)
    vector = embed("x").vector
    await index.text.put(space, [Point("stray", vector, "title")], 2)  # an orphan
    await index.text.purge(space, [a])  # lost
    await index.dense.purge(space, [b])  # lost on the other side
    await index.text.purge(space, [c])
    await index.text.put(space, [Point(c, vector, "title")], 1)  # alive although its version ended
    report = await repair(bench.catalog, index, bench.writer)
    counts = (report.orphan_points, report.undead_points, report.missing_chunks, report.documents_to_ingest)
    assert counts == (1, 1, 2, 2)
    assert (await repair(bench.catalog, index, bench.writer)).found_nothing
    await bench.commit(*documents[:2])
    assert len(await both_answer(bench)) == 3
    await index.text.drop(space)
    assert (await repair(bench.catalog, index, bench.writer)).missing_shards == 1
    await bench.close()
    await index.close()
