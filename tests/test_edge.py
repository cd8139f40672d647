"""What is the embedded index's own: open shards, concurrent reading and writing, errors."""

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import RFC_4122

import numpy as np
import pytest
import qdrant_edge as engine
from hypothesis import given
from hypothesis import strategies as st

from indexers.base import (
    CollectionSpec,
    FilterError,
    IndexUnavailableError,
    InvalidPointError,
    Namespace,
    NamespaceNotFoundError,
    Point,
    View,
)
from indexers.bm25 import Bm25
from indexers.edge import EdgeIndex
from indexers.edge_filter import MAX_NUMERIC_FIELDS
from indexers.edge_payload import carried_id, carries_id, engine_id
from indexers.edge_shard import map_errors
from indexers.filter import parse_filter
from server.base import chunk_id

NAMESPACE = Namespace(CollectionSpec("docs", 16), "default")


def points(commit: int, count: int = 200) -> list[Point]:
    vectors = np.random.default_rng(commit).standard_normal((count, 16)).astype(np.float32)
    return [Point(f"p{i}", v, f"pump c{commit} w{i}", {"commit": commit}) for i, v in enumerate(vectors)]


def test_a_number_is_one_term_whatever_its_digits() -> None:
    model = Bm25("arabic")
    (year,) = model.question("2024").ids
    assert year in model.document("في عام ٢٠٢٤").ids
    assert year not in model.document("KB2024").ids


async def test_a_reader_sees_whole_commits_only_while_a_writer_writes(tmp_path: Path) -> None:
    """Conditions that nothing stored could meet are left out of a search: a write beside it must bring them back."""
    index = EdgeIndex.open(tmp_path)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    committed, is_done = 1, False

    async def write() -> None:
        nonlocal committed, is_done
        for commit in range(2, 9):
            await index.put(NAMESPACE, points(commit), commit)
            if commit % 3 == 0:
                await index.undo(NAMESPACE, commit - 1)
                await index.put(NAMESPACE, points(commit), commit)
            await index.delete(NAMESPACE, ["p0"], commit + 1)
            await index.undo(NAMESPACE, commit)
            committed = commit
            await index.sweep(NAMESPACE, commit - 3)
        is_done = True

    async def read() -> int:
        searches = 0
        while not is_done:
            view = View(committed)
            dense, text = await asyncio.gather(
                index.search_dense(NAMESPACE, points(1)[0].vector, view, 500),
                index.search_text(NAMESPACE, f"c{view.snapshot}", view, 500),
            )
            assert len(dense) == len(text) == len({h.id for h in dense}) == len({h.id for h in text}) == 200
            searches += 1
        return searches

    _, first, second = await asyncio.gather(write(), read(), read())
    assert first + second > 10
    await index.close()


async def test_calls_under_way_end_before_a_drop(tmp_path: Path) -> None:
    index = EdgeIndex.open(tmp_path)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    searches = [index.search_text(NAMESPACE, "pump", View(1), 200) for _ in range(5)]
    found = asyncio.gather(*searches)
    await asyncio.gather(found, index.drop(NAMESPACE))
    assert [len(hits) for hits in found.result()] == [200] * 5
    with pytest.raises(NamespaceNotFoundError):
        await index.search_text(NAMESPACE, "pump", View(1), 200)
    await index.close()


async def test_a_cancelled_write_leaves_a_usable_shard(tmp_path: Path) -> None:
    index = EdgeIndex.open(tmp_path, max_open_shards=1)
    other = Namespace(NAMESPACE.collection, "other")
    for space in (NAMESPACE, other):
        await index.create(space)
    await index.put(NAMESPACE, points(1), 1)
    task = asyncio.ensure_future(index.put(NAMESPACE, points(2, 2000), 2))
    await asyncio.sleep(0.05)
    task.cancel()
    assert await index.count(other, None) == 0  # closes the first shard
    await index.undo(NAMESPACE, 1)
    assert await index.count(NAMESPACE, None) == 200
    assert len(await index.search_text(NAMESPACE, "c1", View(1), 500)) == 200
    await index.close()


async def test_sweeping_most_of_a_shard_gives_its_space_back_while_searches_go_on(tmp_path: Path) -> None:
    index = EdgeIndex.open(tmp_path, compact_from=500)
    await index.create(NAMESPACE)
    (home,) = tmp_path.glob("*/default-*")
    for commit in range(1, 5):
        await index.put(NAMESPACE, points(commit), commit)
    await index.patch(NAMESPACE, ["p7"], {"size": 7.5}, ("eng",), 4)
    await index.put(NAMESPACE, points(5, 50), 5)
    (home / "shard-left").mkdir()  # by a copy that was interrupted
    question = points(4)[7].vector
    view = View(4, frozenset({"eng"}), parse_filter({"commit": 4}))

    async def answers() -> tuple[object, ...]:
        dense = await index.search_dense(NAMESPACE, question, view, 300)
        text = await index.search_text(NAMESPACE, "c4 w7", view, 300)
        sized = View(4, None, parse_filter({"size": {"$gt": 7.25}}))
        return dense, [hit.id for hit in text], await index.count(NAMESPACE, sized), await index.count(NAMESPACE, None)

    before = await answers()
    assert [len(found) if isinstance(found, list) else found for found in before] == [200, 200, 1, 850]
    sweep = asyncio.ensure_future(index.sweep(NAMESPACE, 4))
    searches = 0
    while not sweep.done():
        assert await index.search_dense(NAMESPACE, question, view, 300) == before[0]
        searches += 1
    assert (await sweep, searches > 3) == (600, True)
    assert [entry.name for entry in home.glob("shard*")] != ["shard"]
    assert len(list(home.glob("shard*"))) == 1
    assert await answers() == (*before[:3], 250)
    await index.put(NAMESPACE, points(6), 6)
    await index.close()
    index = EdgeIndex.open(tmp_path)
    assert await answers() == (*before[:3], 450)
    await index.close()


async def test_numeric_fields_are_bounded_and_known_after_a_restart(tmp_path: Path) -> None:
    index = EdgeIndex.open(tmp_path)
    await index.create(NAMESPACE)
    vector = np.ones(16, np.float32)
    wide = Point("wide", vector, None, {f"f{i}": i for i in range(MAX_NUMERIC_FIELDS)})
    await index.put(NAMESPACE, [wide], 1)
    with pytest.raises(InvalidPointError, match="numeric metadata fields"):
        await index.put(NAMESPACE, [Point("more", vector, None, {"one more": 1})], 2)
    await index.close()
    index = EdgeIndex.open(tmp_path)
    for number in (0, 7, MAX_NUMERIC_FIELDS - 1):
        for raw, found in (({"$gte": number}, 1), ({"$gt": number}, 0), ({"$lte": number}, 1), ({"$lt": number}, 0)):
            assert await index.count(NAMESPACE, View(1, None, parse_filter({f"f{number}": raw}))) == found
    await index.close()


async def test_a_damaged_namespace_is_named_and_breaks_no_other(tmp_path: Path) -> None:
    other = Namespace(NAMESPACE.collection, "other")
    index = EdgeIndex.open(tmp_path)
    for space in (NAMESPACE, other):
        await index.create(space)
    await index.close()
    (shard,) = tmp_path.glob("*/default-*/shard")
    for file in [f for f in shard.rglob("*") if f.is_file()]:
        file.write_bytes(b"broken")
    index = EdgeIndex.open(tmp_path)
    with pytest.raises(IndexUnavailableError, match="default"):
        await index.count(NAMESPACE, None)
    assert await index.count(other, None) == 0
    (shard.parent / "namespace.json").write_text("{")
    with pytest.raises(IndexUnavailableError, match=r"namespace\.json"):
        await index.count(NAMESPACE, None)
    await index.close()


async def test_open_shards_are_bounded_and_those_in_use_stay_open(tmp_path: Path) -> None:
    index = EdgeIndex.open(tmp_path, max_open_shards=2)
    spaces = [Namespace(NAMESPACE.collection, f"n{i}") for i in range(4)]
    for number, space in enumerate(spaces):
        await index.create(space)
        await index.put(space, [Point("a", np.full(16, number + 1, np.float32), "pump")], 1)
    assert index.open_shards == 2
    for _ in range(2):
        for number, space in enumerate(spaces):
            assert (await index.fetch(space, ["a"], View(1)))["a"].vector[0] == number + 1
    assert index.open_shards == 2
    await index.close()
    assert index.open_shards == 0


async def test_whatever_the_engine_raises_is_translated() -> None:
    own = [kind for kind in vars(engine).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    assert own == []  # what it raises are Exception, ValueError and panics
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    for raised in (Exception("x"), ValueError("x"), OSError("x"), panic("x")):
        with pytest.raises(IndexUnavailableError, match="docs:default"), map_errors(NAMESPACE):
            raise raised
    for passed in (KeyboardInterrupt(), FilterError("x")):
        with pytest.raises(type(passed)), map_errors(NAMESPACE):
            raise passed


@given(st.integers(0, 2**88 - 1), st.integers(0, 2**34 - 1))
def test_a_chunks_id_and_its_commit_are_carried_in_one_engine_id(number: int, born: int) -> None:
    id_ = f"chk_{number:022x}"
    version = engine_id(id_, born)
    assert (version.version, version.variant) == (8, RFC_4122)
    assert carries_id(version)
    assert carried_id(version) == id_
    assert engine_id(id_, (born + 1) % 2**34) != version


@given(st.lists(st.tuples(st.integers(0, 2**88 - 1), st.integers(0, 2**34 - 1)), min_size=2, unique_by=lambda n: n[0]))
def test_engine_ids_that_carry_ids_are_ordered_as_these_are(numbers: list[tuple[int, int]]) -> None:
    made = {f"chk_{number:022x}": engine_id(f"chk_{number:022x}", born) for number, born in numbers}
    assert sorted(made) == sorted(made, key=lambda id_: made[id_].int)


@pytest.mark.parametrize("other", ["p1", "chk_" + "0" * 21, "chk_" + "A" * 22, "chk_" + "0" * 32])
async def test_any_other_id_is_found_beside_the_chunks(tmp_path: Path, other: str) -> None:
    index = EdgeIndex.open(tmp_path)
    await index.create(NAMESPACE)
    chunk = chunk_id("docs", "default", "doc", "v", 0)
    made = points(1, 2)
    await index.put(NAMESPACE, [replace(made[0], id=other), replace(made[1], id=chunk)], 1)
    assert not carries_id(engine_id(other, 1))
    assert carried_id(engine_id(chunk, 1)) == chunk
    assert {h.id for h in await index.search_dense(NAMESPACE, made[0].vector, View(1), 5)} == {other, chunk}
    assert {h.id for h in await index.search_text(NAMESPACE, "pump", View(1), 5)} == {other, chunk}
    await index.close()
