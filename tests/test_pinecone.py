"""What is the Pinecone leg's own: writes shown late, limits of a request, failures; Pinecone's client on the same wire.

Against a server in tests/ that speaks Pinecone's wire. Pinecone itself is not reached by any test.
"""

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from pinecone import Pinecone

from indexers.base import (
    CollectionSpec,
    DimensionMismatchError,
    IndexerError,
    IndexUnavailableError,
    InvalidPointError,
    Namespace,
    NamespaceNotFoundError,
    Point,
    View,
)
from indexers.filter import parse_filter
from indexers.pinecone import PineconeIndex
from indexers.pinecone_record import carried_id, record_id
from indexers.pinecone_space import MAX_BATCH_BYTES
from indexers.retry import Backoff, Retries
from tests.pinecone_server import PineconeServer, pinecone_server

NAMESPACE = Namespace(CollectionSpec("docs", 16), "default")
QUICK = Backoff(base_s=0.001)


def points(commit: int, count: int = 50) -> list[Point]:
    vectors = np.random.default_rng(commit).standard_normal((count, 16)).astype(np.float32)
    return [Point(f"p{i}", v, None, {"commit": commit}) for i, v in enumerate(vectors)]


@pytest.fixture
def server() -> Iterator[PineconeServer]:
    with pinecone_server(16) as running:
        yield running


@pytest.fixture
async def index(server: PineconeServer) -> AsyncIterator[PineconeIndex]:
    made = PineconeIndex.at(server.url, "key", retries=Retries(QUICK))
    await made.create(NAMESPACE)
    yield made
    await made.close()


async def test_a_writer_waits_until_its_writes_are_seen(index: PineconeIndex, server: PineconeServer) -> None:
    await index.put(NAMESPACE, points(1, 250), 1)
    assert len(server.late["docs:default"]) > 1  # taken, not shown
    await index.put(NAMESPACE, points(2, 10), 2)
    await index.delete(NAMESPACE, ["p3"], 2)
    await index.flush(NAMESPACE)
    assert not server.late["docs:default"]
    other = PineconeIndex.at(server.url, "key")  # another process, after the commit
    assert await other.count(NAMESPACE, View(1)) == 250
    seen = View(2, None, parse_filter({"commit": 2}))
    assert len(await other.search_dense(NAMESPACE, points(2)[0].vector, seen, 100)) == 9
    await other.close()


async def test_what_exceeds_the_limit_of_one_change_is_changed_in_several(
    index: PineconeIndex, server: PineconeServer
) -> None:
    await index.put(NAMESPACE, points(1), 1)
    await index.delete(NAMESPACE, [f"p{i}" for i in range(40)], 2)
    await index.flush(NAMESPACE)
    server.most_changed = 7
    await index.undo(NAMESPACE, 1)
    assert await index.count(NAMESPACE, View(2)) == 50
    server.most_changed = 1000
    await index.delete(NAMESPACE, [f"p{i}" for i in range(40)], 2)
    await index.flush(NAMESPACE)
    server.most_changed = 7
    assert await index.sweep(NAMESPACE, 2) == 40
    assert await index.count(NAMESPACE, None) == 10
    server.most_changed = 0
    with pytest.raises(IndexUnavailableError, match="did not make it"):
        await index.undo(NAMESPACE, 0)


async def test_requests_stay_below_pinecones_limits(server: PineconeServer) -> None:
    wide = 3072
    with pinecone_server(wide) as big:
        index = PineconeIndex.at(big.url, "key")
        space = Namespace(CollectionSpec("wide", wide), "default")
        await index.create(space)
        vectors = np.random.default_rng(1).standard_normal((120, wide)).astype(np.float32)
        await index.put(space, [Point(f"p{i}", v) for i, v in enumerate(vectors)], 1)
        sizes = [size for path, size in big.requests if path == "/vectors/upsert"]
        assert len(sizes) > 2
        assert max(sizes) <= MAX_BATCH_BYTES + 100
        assert await index.count(space, View(1)) == 120
        await index.close()


async def test_what_pinecone_would_refuse_is_named_and_nothing_of_it_is_kept(index: PineconeIndex) -> None:
    long = Point("long", np.ones(16, np.float32), None, {"text": "x" * 41_000})
    for bad, said in ((long, "'long'.*40960"), (Point("zero", np.zeros(16, np.float32)), "'zero'.*zeros")):
        with pytest.raises(InvalidPointError, match=said):
            await index.put(NAMESPACE, [*points(1), bad], 1)
    assert await index.count(NAMESPACE, None) == 0
    with pytest.raises(IndexerError, match="too long for Pinecone"):
        await index.create(Namespace(NAMESPACE.collection, "é" * 200))


async def test_ids_that_do_not_fit_are_found_all_the_same(index: PineconeIndex) -> None:
    long = "é" * 256
    assert carried_id(record_id("a#b/é", 7)) == "a#b/é"
    assert carried_id(record_id(long, 7)) is None
    some = points(1, 3)
    await index.put(NAMESPACE, [*some, Point(long, some[0].vector, None, {"x": 1})], 1)
    hits = await index.search_dense(NAMESPACE, some[0].vector, View(1), 9)
    assert {hit.id for hit in hits} == {"p0", "p1", "p2", long}


async def test_an_index_of_another_dimension_or_metric_is_refused(index: PineconeIndex) -> None:
    for spec in (CollectionSpec("docs", 17), CollectionSpec("docs", 16, "dotproduct")):
        with pytest.raises(DimensionMismatchError, match="pinecone_url"):
            await index.create(Namespace(spec, "other"))
    assert await index.list("docs") == ["default"]


# --- failures ------------------------------------------------------------------------------------------------------


async def test_passing_failures_are_repeated(index: PineconeIndex, server: PineconeServer) -> None:
    server.failures.extend([503, 429, 500])
    await index.put(NAMESPACE, points(1), 1)
    server.failures.extend([502])
    assert await index.count(NAMESPACE, View(1)) == 50
    server.failures.extend([503] * 5)
    with pytest.raises(IndexUnavailableError, match="503 \\(come back\\)"):
        await index.count(NAMESPACE, View(1))
    assert await index.count(NAMESPACE, View(1)) == 50


async def test_other_failures_are_named_at_once(server: PineconeServer, index: PineconeIndex) -> None:
    asked = len(server.requests)
    server.failures.append(400)
    with pytest.raises(InvalidPointError, match="come back"):
        await index.count(NAMESPACE, View(1))
    assert len(server.requests) == asked + 1
    stranger = PineconeIndex.at(server.url, "another-key")
    with pytest.raises(IndexUnavailableError, match="pinecone_api_key_file") as refusal:
        await stranger.count(NAMESPACE, View(1))
    assert "another-key" not in str(refusal.value)
    await stranger.close()
    nowhere = PineconeIndex.at("http://127.0.0.1:1", "key", retries=Retries(QUICK))
    with pytest.raises(IndexUnavailableError, match="check pinecone_url"):
        await nowhere.count(NAMESPACE, View(1))
    await nowhere.close()


# --- the wire ------------------------------------------------------------------------------------------------------


async def test_pinecones_own_client_and_the_leg_understand_the_same_server(
    index: PineconeIndex, server: PineconeServer
) -> None:
    server.is_late = False
    await index.put(NAMESPACE, points(1), 1)
    client = Pinecone(api_key="key")
    official = client.Index(host=server.url)
    stats = official.describe_index_stats()
    assert (stats.dimension, stats.namespaces["docs:default"].vector_count) == (16, 50)
    question = points(1)[3].vector.tolist()
    found = official.query(namespace="docs:default", vector=question, top_k=3, include_metadata=True)
    assert (found.matches[0].id, found.matches[0].metadata["i"]) == ("p3#1", "p3")
    hits = await index.search_dense(NAMESPACE, points(1)[3].vector, View(1), 3)
    assert [hit.id for hit in hits] == [carried_id(match.id) for match in found.matches]
    live = {"d": {"$eq": 2**53}}
    page = official.fetch_by_metadata(filter=live, namespace="docs:default", limit=10)
    assert len(page.vectors) == 10
    assert page.pagination.next
    assert set(official.fetch(ids=["p3#1", "none"], namespace="docs:default").vectors) == {"p3#1"}
    matched = official.update(filter=live, set_metadata={"v": 1}, namespace="docs:default", dry_run=True)
    assert matched.matched_records == 50
    official.update(filter={"i": {"$eq": "p3"}}, set_metadata={"d": 2}, namespace="docs:default")
    official.delete(filter={"i": {"$eq": "p4"}}, namespace="docs:default")
    assert await index.count(NAMESPACE, View(2)) == 48
    assert await index.count(NAMESPACE, View(1)) == 49
    official.create_namespace(name="docs:new")
    assert await index.list("docs") == ["default", "new"]
    official.delete_namespace(name="docs:default")
    with pytest.raises(NamespaceNotFoundError, match="docs:default"):
        await index.count(NAMESPACE, View(1))
    official.close()
    client.close()
