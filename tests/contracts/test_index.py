"""What every index does, run on each of them; and that all of them find the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexers.base import (
    CollectionSpec,
    DimensionMismatchError,
    Float32,
    Hit,
    Index,
    IndexerError,
    IndexUnavailableError,
    InvalidPointError,
    Metadata,
    Metric,
    Namespace,
    NamespaceNotFoundError,
    Point,
    View,
)
from indexers.filter import matches, parse_filter
from indexers.memory import MemoryIndex
from tests.contracts.backends import KINDS, Backend, local_backend
from tests.filters import metadata, raw_filters

# The client's local mode has no payload indexes, no quantisation and no graph; a server has.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]

NAMESPACE = Namespace(CollectionSpec("docs", 8), "default")
GROUPS = ("eng", "ops", "*", "+eng")


@pytest.fixture(scope="module", params=["memory", *KINDS])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    made = local_backend(request.param, tmp_path_factory.mktemp("index"))
    yield made
    asyncio.run(made.end())


@pytest.fixture
async def index(backend: Backend) -> AsyncIterator[Index]:
    """One index for all tests, emptied before each: making a shard takes a quarter of a second."""
    async with backend.opened() as opened:
        await empty(opened)
        yield opened


async def empty(index: Index) -> None:
    await index.create(NAMESPACE)
    await index.undo(NAMESPACE, 0)


def vector(seed: int, dimension: int = 8) -> Float32:
    made: Float32 = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return made


def point(point_id: str, text: str | None = "the pump", seed: int | None = None, **rest: object) -> Point:
    seed = sum(point_id.encode()) if seed is None else seed
    return replace(Point(point_id, vector(seed), text), **rest)  # type: ignore[arg-type]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


async def visible(index: Index, view: View) -> set[str]:
    """The ids a view sees, which scan, count, fetch and the dense leg must agree on."""
    scanned, after = await index.scan(NAMESPACE, view, None, 1000)
    found = [stored.point.id for stored in scanned]
    assert after is None
    assert len(found) == len(set(found)) == await index.count(NAMESPACE, view)
    assert set(found) == set(await index.fetch(NAMESPACE, found, view))
    dense = await index.search_dense(NAMESPACE, vector(1), view, 1000)
    assert sorted(ids(dense)) == sorted(found)
    return set(found)


async def dump(index: Index) -> list[tuple[str, int, int | None]]:
    stored, _ = await index.scan(NAMESPACE, None, None, 1000)
    return sorted((s.point.id, s.born, s.died) for s in stored)


# --- snapshots -----------------------------------------------------------------------------------------------------


async def test_a_search_sees_the_commit_it_names(index: Index) -> None:
    await index.put(NAMESPACE, [point("a"), point("b")], 1)
    await index.put(NAMESPACE, [point("b", "the valve", seed=99), point("c")], 2)
    await index.delete(NAMESPACE, ["a", "unknown"], 3)
    assert [await visible(index, View(e)) for e in range(4)] == [set(), {"a", "b"}, {"a", "b", "c"}, {"b", "c"}]
    for snapshot, found in ((1, ["a", "b"]), (2, ["a", "c"]), (3, ["c"])):
        assert ids(await index.search_text(NAMESPACE, "pump", View(snapshot), 10)) == found
    assert ids(await index.search_text(NAMESPACE, "valve", View(1), 10)) == []
    assert ids(await index.search_dense(NAMESPACE, vector(99), View(2), 1)) == ["b"]
    old = (await index.fetch(NAMESPACE, ["b"], View(1)))["b"]
    np.testing.assert_allclose(old.vector, point("b").vector, rtol=1e-6)


async def test_writes_repeated_with_the_same_commit_change_nothing(index: Index) -> None:
    for _ in range(2):
        await index.put(NAMESPACE, [point("a"), point("b"), point("c")], 1)
    for _ in range(2):
        await index.put(NAMESPACE, [point("a", "the valve")], 2)
        await index.delete(NAMESPACE, ["b"], 2)
        await index.patch(NAMESPACE, ["c"], {"n": 1}, None, 2)
    assert await dump(index) == [("a", 1, 2), ("a", 2, None), ("b", 1, 2), ("c", 1, 2), ("c", 2, None)]


async def test_undo_forgets_a_commit_that_was_half_written(index: Index) -> None:
    await index.put(NAMESPACE, [point(f"p{i}") for i in range(100)], 1)
    before = await dump(index)
    await index.put(NAMESPACE, [point(f"p{i}", "the valve") for i in range(70)], 2)
    await index.delete(NAMESPACE, ["p80"], 2)
    await index.patch(NAMESPACE, ["p90"], {"n": 1}, ("eng",), 2)
    await index.undo(NAMESPACE, 1)
    assert await dump(index) == before
    assert len(await index.search_text(NAMESPACE, "pump", View(2), 1000)) == 100
    assert await index.search_text(NAMESPACE, "valve", View(2), 1000) == []
    await index.put(NAMESPACE, [point("p0", "the valve")], 2)
    assert ids(await index.search_text(NAMESPACE, "valve", View(2), 10)) == ["p0"]


async def test_sweep_removes_what_died_up_to_the_horizon(index: Index) -> None:
    await index.put(NAMESPACE, [point("a"), point("b"), point("c")], 1)
    await index.put(NAMESPACE, [point("a")], 2)
    await index.delete(NAMESPACE, ["b"], 3)
    assert await index.sweep(NAMESPACE, 1) == 0
    assert await index.sweep(NAMESPACE, 2) == 1
    assert await dump(index) == [("a", 2, None), ("b", 1, 3), ("c", 1, None)]
    assert await visible(index, View(2)) == {"a", "b", "c"}
    assert await index.sweep(NAMESPACE, 9) == 1
    assert await visible(index, View(3)) == {"a", "c"}


async def test_purge_removes_every_version(index: Index) -> None:
    await index.put(NAMESPACE, [point("a"), point("b")], 1)
    await index.put(NAMESPACE, [point("a")], 2)
    await index.purge(NAMESPACE, ["a", "unknown"])
    assert await dump(index) == [("b", 1, None)]


async def test_top_k_never_starves(index: Index) -> None:
    old = [point(f"p{i:03}", "the pump of old") for i in range(300)]
    await index.put(NAMESPACE, old, 1)
    await index.put(NAMESPACE, [replace(p, text="the pump anew") for p in old], 2)
    for view in (View(2), View(1), View(2, frozenset()), View(2, None, parse_filter({"x": {"$ne": 1}}))):
        for hits in (
            await index.search_dense(NAMESPACE, vector(1), view, 100),
            await index.search_text(NAMESPACE, "pump", view, 100),
        ):
            assert len(set(ids(hits))) == 100
    assert len(await index.search_text(NAMESPACE, "anew", View(2), 300)) == 300


# --- what is stored ------------------------------------------------------------------------------------------------


async def test_a_point_is_given_back_as_it_was_but_for_its_text(index: Index) -> None:
    stored = point(
        "a",
        metadata={"s": "é", "n": 5, "f": 0.1 + 0.2, "b": True, "l": ["x", "y"], "a.b[0]": "", "b2": False},
        document_id="doc_1",
        start=3,
        end=9,
        groups=("eng", "*"),
    )
    await index.put(NAMESPACE, [stored], 1)
    (found,) = (await index.fetch(NAMESPACE, ["a"], View(1))).values()
    np.testing.assert_allclose(found.vector, stored.vector, rtol=1e-6)
    expected = {**stored.metadata, "n": 5.0}
    wanted = replace(stored, text=None, metadata=expected)
    for name in {field.name for field in fields(Point)} - {"vector"}:
        assert getattr(found, name) == getattr(wanted, name), name
    assert {key: type(value) for key, value in found.metadata.items()} == {k: type(v) for k, v in expected.items()}


@pytest.mark.parametrize("odd", ["x" * 512, "é" * 256, "a/../b", "\0", " ", '"', "東京", "\U0001f9ea", "a\0b", "1"])
async def test_ids_are_any_strings(index: Index, odd: str) -> None:
    await index.put(NAMESPACE, [point(odd), point("other")], 1)
    await index.put(NAMESPACE, [point(odd, "the valve")], 2)
    assert ids(await index.search_text(NAMESPACE, "valve", View(2), 10)) == [odd]
    await index.delete(NAMESPACE, [odd], 3)
    assert await visible(index, View(3)) == {"other"}


async def test_what_cannot_be_stored_is_refused_and_nothing_of_it_is_kept(index: Index) -> None:
    fine = point("fine")
    for bad, error in (
        (point("x" * 513), InvalidPointError),
        (point(""), InvalidPointError),
        (point("\ud800", seed=1), InvalidPointError),
        (point("a", vector=vector(1, 7)), DimensionMismatchError),
        (point("a", vector=np.full(8, np.nan, np.float32)), InvalidPointError),
        (point("a", metadata={"$in": 1}), InvalidPointError),
        (point("a", metadata={"n": 2**53 + 1}), InvalidPointError),
        (point("a", metadata={"n": float("inf")}), InvalidPointError),
        (point("a", metadata={"n": None}), InvalidPointError),
        (point("a", metadata={"n": [1, 2]}), InvalidPointError),
        (point("a", groups=("",)), InvalidPointError),
        (point("a", "\ud800"), InvalidPointError),
    ):
        with pytest.raises(error) as refusal:
            await index.put(NAMESPACE, [fine, bad], 1)
        str(refusal.value).encode()
    assert await index.count(NAMESPACE, None) == 0
    for short in (vector(1, 7), vector(1, 9)):
        with pytest.raises(DimensionMismatchError):
            await index.search_dense(NAMESPACE, short, View(1), 10)


async def test_of_two_points_under_one_id_the_later_is_stored(index: Index) -> None:
    await index.put(NAMESPACE, [point("a", "the pump"), point("a", "the valve")], 1)
    assert await dump(index) == [("a", 1, None)]
    assert ids(await index.search_text(NAMESPACE, "valve", View(1), 10)) == ["a"]


async def test_patch_merges_metadata_and_keeps_what_is_searched(index: Index) -> None:
    await index.put(NAMESPACE, [point("a", metadata={"x": 1, "y": "z"}, groups=("eng",)), point("b", None)], 1)
    await index.patch(NAMESPACE, ["a", "b", "unknown"], {"x": "new", "w": [""]}, None, 2)
    await index.patch(NAMESPACE, ["a"], {}, ("ops",), 3)
    for snapshot, x, groups in ((1, 1.0, ("eng",)), (2, "new", ("eng",)), (3, "new", ("ops",))):
        found = (await index.fetch(NAMESPACE, ["a"], View(snapshot)))["a"]
        assert (found.metadata["x"], found.groups) == (x, groups)
        assert found.metadata["y"] == "z"
        assert ids(await index.search_text(NAMESPACE, "pump", View(snapshot), 10)) == ["a"]
        assert ids(await index.search_text(NAMESPACE, "pump", View(snapshot, frozenset(groups)), 10)) == ["a"]
        np.testing.assert_allclose(found.vector, point("a").vector, rtol=1e-6)
    assert (await index.fetch(NAMESPACE, ["b"], View(2)))["b"].metadata == {"x": "new", "w": [""]}


async def test_scan_goes_through_every_version_once(index: Index) -> None:
    await index.put(NAMESPACE, [point(f"p{i}") for i in range(30)], 1)
    await index.put(NAMESPACE, [point(f"p{i}") for i in range(10)], 2)
    for view, size in ((None, 40), (View(1), 30), (View(2), 30)):
        seen, after = await index.scan(NAMESPACE, view, None, 7)
        while after is not None:
            page, after = await index.scan(NAMESPACE, view, after, 7)
            seen += page
        assert len({(s.point.id, s.born) for s in seen}) == len(seen) == size == await index.count(NAMESPACE, view)


# --- who may see it ------------------------------------------------------------------------------------------------


async def test_groups(index: Index) -> None:
    await index.put(
        NAMESPACE,
        [
            point("public"),
            point("eng", groups=("eng",)),
            point("ops", groups=("ops",)),
            point("both", groups=("eng", "ops")),
            point("star", groups=("*",)),
        ],
        1,
    )
    for groups, found in (
        (None, {"public", "eng", "ops", "both", "star"}),
        (frozenset(), {"public"}),
        (frozenset({"eng"}), {"public", "eng", "both"}),
        (frozenset({"eng", "ops"}), {"public", "eng", "ops", "both"}),
        (frozenset({"*"}), {"public", "star"}),
        (frozenset({"+eng", "unknown"}), {"public"}),
        (frozenset({"eng", *(f"team-{i}" for i in range(500))}), {"public", "eng", "both"}),
    ):
        assert await visible(index, View(1, groups)) == found


# --- the legs ------------------------------------------------------------------------------------------------------


async def test_a_repeated_question_term_counts_as_often_as_it_occurs(index: Index) -> None:
    await index.put(NAMESPACE, [point("a", "pump motor"), point("b", "valve motor")], 1)
    once, thrice = [await index.search_text(NAMESPACE, q, View(1), 10) for q in ("pump", "pump pumps pumped")]
    assert ids(once) == ids(thrice) == ["a"]
    assert thrice[0].score == pytest.approx(3 * once[0].score, rel=1e-5)


async def test_text_leg_reads_scripts_without_spaces_and_skips_points_without_text(index: Index) -> None:
    await index.put(
        NAMESPACE, [point("ja", "東京のポンプを毎年点検する"), point("zh", "每年检查水泵"), point("none", None)], 1
    )
    assert ids(await index.search_text(NAMESPACE, "ポンプ", View(1), 10)) == ["ja"]
    assert ids(await index.search_text(NAMESPACE, "水泵", View(1), 10)) == ["zh"]
    for nothing in ("", " ", "the of and", "!?"):
        assert await index.search_text(NAMESPACE, nothing, View(1), 10) == []


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Invoice 10023457 is paid.", "10023457"),
        ("Invoice 10023457 is paid.", "invoice 10023457"),
        ("See ISO-9001, Article 5.", "article 5 of iso 9001"),
        ("It costs 12,500 euros.", "12,500"),
        ("Error KB5034441 at 192.168.0.1", "192.168.0.1"),
        ("营业额2024年增长", "2024"),
    ],
)
async def test_numbers_are_words(index: Index, text: str, asked: str) -> None:
    """What people look for with BM25 most of all; the engine's tokeniser passes over what has no letter."""
    others = [point("b", "Invoice 10023456 is paid."), point("c", "ISO-9002, Article 6 of 2023: 12,600 at 10.0.0.2")]
    await index.put(NAMESPACE, [point("d", text), *others], 1)
    assert ids(await index.search_text(NAMESPACE, asked, View(1), 10))[0] == "d"


async def test_equal_scores_are_ranked_by_id(index: Index) -> None:
    names = [f"p{i:02}" for i in np.random.default_rng(3).permutation(60)]
    await index.put(NAMESPACE, [point(name, "pump", seed=1) for name in names], 1)
    for top_k in (1, 10, 59, 60, 100):
        expected = sorted(names)[:top_k]
        assert ids(await index.search_text(NAMESPACE, "pump", View(1), top_k)) == expected
        assert ids(await index.search_dense(NAMESPACE, vector(2), View(1), top_k)) == expected
    assert await index.search_dense(NAMESPACE, vector(2), View(1), 0) == []


# --- namespaces ----------------------------------------------------------------------------------------------------


async def test_namespaces_have_any_names_and_are_apart(index: Index) -> None:
    names = ["a/b", "..", "A", "a", "x" * 300, "é\0 "]
    spaces = [replace(NAMESPACE, name=name) for name in names]
    for number, space in enumerate(spaces):
        await index.create(space)
        await index.put(space, [point(f"p{number}")], 1)
    assert await index.list("docs") == sorted([*names, "default"])
    assert await index.list("other") == []
    for number, space in enumerate(spaces):
        assert ids(await index.search_text(space, "pump", View(1), 10)) == [f"p{number}"]
        await index.drop(space)
        await index.drop(space)
        with pytest.raises(NamespaceNotFoundError):
            await index.count(space, None)
    assert await index.list("docs") == ["default"]
    await index.create(spaces[0])
    assert await index.count(spaces[0], None) == 0


async def test_create_leaves_what_is_there(index: Index) -> None:
    await index.put(NAMESPACE, [point("a")], 1)
    await index.create(NAMESPACE)
    assert await visible(index, View(1)) == {"a"}


async def test_an_unknown_namespace_or_language_is_named(index: Index) -> None:
    unknown = replace(NAMESPACE, name="unknown")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: index.put(unknown, [point("a")], 1),
        lambda: index.search_text(unknown, "pump", View(1), 1),
        lambda: index.flush(unknown),
        lambda: index.sweep(unknown, 1),
    ]
    for call in calls:
        with pytest.raises(NamespaceNotFoundError, match="unknown"):
            await call()
    with pytest.raises(IndexerError, match="klingon"):
        await index.create(Namespace(CollectionSpec("star", 8, language="klingon"), "x"))
    assert await index.list("star") == []


async def test_a_closed_index_says_so(backend: Backend) -> None:
    await backend.close()  # an engine's files have one owner
    index = backend.open()
    await index.create(NAMESPACE)
    await index.close()
    with pytest.raises(IndexUnavailableError, match="closed"):
        await index.search_text(NAMESPACE, "pump", View(1), 1)
    with pytest.raises(IndexUnavailableError, match="closed"):
        await index.search_dense(NAMESPACE, vector(1), View(1), 1)
    with pytest.raises(IndexUnavailableError, match="closed"):
        await index.list("docs")


# --- all the same --------------------------------------------------------------------------------------------------


def assert_same_ranking(expected: list[Hit], found: list[Hit]) -> None:
    """The same scores within float32's tolerance, and the same ids but where neighbours' scores are that near."""
    np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], rtol=2e-5, atol=2e-5)
    score_of = {hit.id: hit.score for hit in expected}
    for hit in found:
        if hit.id in score_of:
            assert hit.score == pytest.approx(score_of[hit.id], rel=2e-5, abs=2e-5)
        else:
            assert hit.score == pytest.approx(expected[-1].score, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("metric", ["cosine", "dotproduct", "euclidean"])
async def test_all_rank_alike(backend: Backend, metric: Metric) -> None:
    space = Namespace(CollectionSpec(f"alike-{metric}", 32, metric, "none"), "default")
    rng = np.random.default_rng(5)
    words = [f"w{i}" for i in range(60)]
    points = [
        Point(
            f"p{i}", rng.standard_normal(32).astype(np.float32) * (1 + i % 5), " ".join(rng.choice(words, 5 + i % 40))
        )
        for i in range(400)
    ]
    if backend.takes_zero_vectors:
        points.append(Point("zero", np.zeros(32, np.float32), "w0"))
    async with backend.opened(space.collection) as index:
        pair = MemoryIndex(), index
        for one in pair:
            await one.create(space)
            await one.put(space, points, 1)
            await one.put(space, [replace(p, vector=-p.vector) for p in points[:100]], 2)
            await one.delete(space, [p.id for p in points[50:70]], 3)
        for view in (View(1), View(2), View(3)):
            query = rng.standard_normal(32).astype(np.float32)
            memory, other = [await one.search_dense(space, query, view, 50, exact=True) for one in pair]
            assert_same_ranking(memory, other)
            assert_same_ranking(memory, await pair[1].search_dense(space, query, view, 50))
            memory, other = [await one.search_text(space, "w1 w2 w2 w3 nothing", view, 50) for one in pair]
            if not backend.text_scores_differ:
                assert_same_ranking(memory, other)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(metadata(), st.sets(st.sampled_from(GROUPS), max_size=2)), min_size=1, max_size=6),
    st.lists(raw_filters(), min_size=1, max_size=6),
    st.none() | st.frozensets(st.sampled_from(GROUPS), max_size=2),
)
def test_filters_mean_the_same_everywhere(
    backend: Backend,
    stored: list[tuple[Metadata, set[str]]],
    filters: list[dict[str, object]],
    groups: frozenset[str] | None,
) -> None:
    points = [point(f"p{i}", metadata=m, groups=tuple(g)) for i, (m, g) in enumerate(stored)]

    async def check(index: Index) -> None:
        memory = MemoryIndex()
        for one in (memory, index):
            await empty(one)
            await one.put(NAMESPACE, points, 1)
        for raw in filters:
            parsed = parse_filter(raw)
            expected = {
                p.id
                for p in points
                if matches(parsed, p.metadata) and (groups is None or not p.groups or groups & set(p.groups))
            }
            for one in (memory, index):
                assert await visible(one, View(1, groups, parsed)) == expected
                text = await one.search_text(NAMESPACE, "pump", View(1, groups, parsed), 100)
                assert set(ids(text)) == expected

    async def run() -> None:
        async with backend.opened() as index:
            await check(index)

    asyncio.run(run())
