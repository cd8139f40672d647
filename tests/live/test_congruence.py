"""Both profiles answer alike: the embedded index, and Qdrant (its client's local mode where no server can be had) with
OpenSearch. `python -m eval.congruence` is the same on all of SciFact."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from eval.congruence import DATA, compare
from eval.datasets import Dataset, read_dataset
from eval.profiles import profile
from indexers.base import CollectionSpec, Hit, Index, MetadataValue, Namespace, Point, View
from indexers.edge import EdgeIndex
from indexers.filter import matches, parse_filter
from indexers.legs import PairedIndex
from indexers.opensearch import OpenSearchIndex
from indexers.opensearch_client import Access
from indexers.opensearch_places import Layout
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from indexers.qdrant_server import QdrantServer
from server.build import build
from server.settings import Settings
from tests.corpus import embed
from tests.filters import NAMES, NUMBERS, STRINGS, raw_filters
from tests.live.opensearch import OpenSearch
from tests.live.qdrant import new_prefix, remove_collections

DOCUMENTS = 320  # of SciFact: those that answer a question, and some others
pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All questions of SciFact, over fewer documents."""
    folder = tmp_path_factory.mktemp("data") / "scifact"
    folder.mkdir()
    source = DATA / "scifact"
    judged = {line.split("\t")[1] for line in (source / "qrels.tsv").read_text().splitlines()[1:]}
    lines = (source / "corpus.jsonl").read_text().splitlines(keepends=True)
    relevant = [line for line in lines if json.loads(line)["_id"] in judged]
    others = [line for line in lines if json.loads(line)["_id"] not in judged]
    (folder / "corpus.jsonl").write_text("".join(relevant + others[: DOCUMENTS - len(relevant)]))
    for name in ("queries.jsonl", "qrels.tsv"):
        (folder / name).write_bytes((source / name).read_bytes())
    return read_dataset(folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of another vocabulary, for two further tenants."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "squad").mkdir()
    (folder / "squad/corpus.jsonl").write_text(
        "".join((DATA / "squad/corpus.jsonl").read_text().splitlines(keepends=True)[:30])
    )
    return [folder / "squad/corpus.jsonl", DATA / "chunking/corpora/state_of_the_union.md"]


@asynccontextmanager
async def gpu_index(node: OpenSearch, server: QdrantServer | None) -> AsyncIterator[Index]:
    """Where the first namespace has an index of its own in OpenSearch, and the others share one."""
    options = QdrantOptions(prefix=new_prefix())
    text = OpenSearchIndex.connect(Access([node.url]), Layout(f"t{uuid4().hex[:8]}", max_own=1, replicas=0))
    index = PairedIndex(QdrantIndex.on(server.client() if server else AsyncQdrantClient(":memory:"), options), text)
    try:
        yield index
    finally:
        await index.close()
        if server:
            await remove_collections(server, options.prefix)


@pytest.fixture(scope="module")
def qdrant_if_any(request: pytest.FixtureRequest) -> QdrantServer | None:
    try:
        found: QdrantServer = request.getfixturevalue("qdrant_server")
    except pytest.skip.Exception:
        return None
    return found


async def test_scifact_and_two_other_tenants(
    dataset: Dataset, others: list[Path], search_node: OpenSearch, qdrant_if_any: QdrantServer | None, tmp_path: Path
) -> None:
    """The same hits, BM25 scores and quality; what happens to one tenant's documents changes nothing of another's."""
    desk = await build(Settings(data_dir=tmp_path / "desk"), command="a test")
    edge = EdgeIndex.open(tmp_path / "index")
    async with (
        gpu_index(search_node, qdrant_if_any) as index,
        profile("embedded", tmp_path / "embedded", edge, desk) as embedded,
        profile("gpu", tmp_path / "gpu", index, desk) as gpu,
    ):
        found = await compare(desk, [embedded, gpu], others, dataset)
    await desk.close()
    assert not found.faults
    assert found.ndcg["fused"][0] > 0.7
    assert found.overlap["BM25"] > 0.99
    assert found.score_apart < 0.01


# --- filters -------------------------------------------------------------------------------------------------------

GROUPS = ("eng", "ops", "*")
SPACE = Namespace(CollectionSpec("docs", 32), "default")


def marked(number: int) -> Point:
    """A point with metadata of every kind, drawn by its number."""
    draw = random.Random(number)
    kinds = (STRINGS, NUMBERS, (True, False), ([], ["x"], ["x", "y"], ["5", "true"]))
    metadata: dict[str, MetadataValue] = {
        name: draw.choice(draw.choice(kinds))
        for name in draw.sample(NAMES, draw.randint(0, 4))  # type: ignore[arg-type]
    }
    groups = tuple(draw.sample(GROUPS, draw.randint(0, 2)))
    words = " ".join(draw.choices(("pump", "valve", "motor", "seal", "casing", "water"), k=draw.randint(1, 80)))
    return Point(f"p{number:04}", embed(str(number)).vector, words, metadata, groups=groups)


POINTS = {point.id: point for point in map(marked, range(400))}


@dataclass(frozen=True)
class Filled:
    """Both indexes with the same points, in an event loop of their own."""

    portal: BlockingPortal
    indexes: tuple[Index, Index]

    async def search(self, view: View) -> tuple[list[list[Hit]], list[list[Hit]], list[int]]:
        """What either finds by vector, what by words, and how many points it sees."""
        query, words, most = embed("a question").vector, "pump valves valve seal", len(POINTS)
        dense = [await each.search_dense(SPACE, query, view, most) for each in self.indexes]
        text = [await each.search_text(SPACE, words, view, most) for each in self.indexes]
        return dense, text, [await each.count(SPACE, view) for each in self.indexes]


@pytest.fixture(scope="module")
def filled(
    search_node: OpenSearch, qdrant_if_any: QdrantServer | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    @asynccontextmanager
    async def fill() -> AsyncIterator[tuple[Index, Index]]:
        edge = EdgeIndex.open(tmp_path_factory.mktemp("edge"))
        async with gpu_index(search_node, qdrant_if_any) as other:
            for index in (edge, other):
                await index.create(SPACE)
                await index.put(SPACE, list(POINTS.values()), 1)
                await index.flush(SPACE)
            yield edge, other
        await edge.close()

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(fill()) as indexes:
        yield Filled(portal, indexes)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw_filters(), st.none() | st.frozensets(st.sampled_from(GROUPS), max_size=2))
def test_random_filters_give_the_same_results(
    filled: Filled, raw: dict[str, object], groups: frozenset[str] | None
) -> None:
    """By each leg, and as the filter's definition has it."""
    parsed = parse_filter(raw)
    expected = {
        p.id
        for p in POINTS.values()
        if matches(parsed, p.metadata) and (groups is None or not p.groups or groups & set(p.groups))
    }
    dense, text, counts = filled.portal.call(filled.search, View(1, groups, parsed))
    assert {hit.id for hit in dense[0]} == expected
    assert [hit.id for hit in dense[0]] == [hit.id for hit in dense[1]]
    scores = [{hit.id: hit.score for hit in each} for each in text]
    assert scores[0].keys() == scores[1].keys() == {id_ for id_ in expected if is_asked_for(POINTS[id_])}
    assert scores[0] == pytest.approx(scores[1], rel=2e-3)
    assert counts == [len(expected)] * 2


def is_asked_for(point: Point) -> bool:
    assert point.text is not None
    return not {"pump", "valve", "seal"}.isdisjoint(point.text.split())
