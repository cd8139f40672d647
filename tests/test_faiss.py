"""What is the faiss leg's own: masks, a GPU's way round them, files that outlive a kill, namespaces that come."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexers.base import (
    CollectionSpec,
    FilterError,
    IndexUnavailableError,
    Metric,
    Namespace,
    Point,
    StoredPoint,
    View,
)
from indexers.faiss import FaissIndex
from indexers.faiss_rows import map_errors
from indexers.faiss_vectors import OnCpu, Overfetched, has_gpu, make_vectors
from indexers.filter import parse_filter

NAMESPACE = Namespace(CollectionSpec("docs", 16), "default")


def points(commit: int, count: int = 200) -> list[Point]:
    vectors = np.random.default_rng(commit).standard_normal((count, 16)).astype(np.float32)
    return [Point(f"p{i}", v, None, {"commit": commit}) for i, v in enumerate(vectors)]


async def stored(index: FaissIndex) -> list[StoredPoint]:
    found, after = await index.scan(NAMESPACE, None, None, 100_000)
    assert after is None
    return found


# --- vectors -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 70), st.floats(0, 1), st.sampled_from(["cosine", "dotproduct", "euclidean"]))
def test_asking_for_more_and_comparing_the_rest_is_as_exact_as_a_mask(
    total: int, count: int, share: float, metric: Metric
) -> None:
    """The way of the GPU, which knows no masks, run on faiss' CPU index of the same interface."""
    rng = np.random.default_rng([total, count])
    kind = faiss.IndexFlatL2 if metric == "euclidean" else faiss.IndexFlatIP
    masked, overfetched = OnCpu(kind(8), metric), Overfetched(kind(8), metric)
    vectors = rng.standard_normal((total, 8)).astype(np.float32)
    for one in (masked, overfetched):
        one.add(vectors)
    seen, query = rng.random(total) < share, rng.standard_normal(8).astype(np.float32)
    (scores, places), (other_scores, other_places) = (one.nearest(query, seen, count) for one in (masked, overfetched))
    assert len(places) == min(count, seen.sum())
    assert seen[places].all()
    np.testing.assert_array_equal(places, other_places)
    np.testing.assert_allclose(scores, other_scores, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(has_gpu(), reason="faiss has a GPU here")
def test_without_a_gpu_one_is_refused() -> None:
    with pytest.raises(IndexUnavailableError, match="faiss_device"):
        make_vectors(8, "cosine", on_gpu=True)


# --- files ---------------------------------------------------------------------------------------------------------


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    index = FaissIndex.open(tmp_path)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    await index.patch(NAMESPACE, ["p7"], {"size": 7.5}, ("eng",), 2)
    await index.delete(NAMESPACE, ["p8"], 2)
    question = points(1)[7].vector

    async def answers() -> tuple[object, ...]:
        sized = View(2, frozenset({"eng"}), parse_filter({"size": {"$gt": 7.25}}))
        hits = await index.search_dense(NAMESPACE, question, View(2), 300)
        return hits, await index.count(NAMESPACE, sized), [(s.point.id, s.born, s.died) for s in await stored(index)]

    before = await answers()
    await index.close()
    index = FaissIndex.open(tmp_path)
    assert await answers() == before
    assert before[1] == 1
    assert await index.list("docs") == ["default"]
    await index.close()


async def write_and_die(root: Path) -> None:
    """Run in a process of its own: commits until SIGKILL comes from outside."""
    index = FaissIndex.open(root)
    await index.create(NAMESPACE)
    for commit in range(1, 1000):
        await index.put(NAMESPACE, points(commit), commit)
        await index.patch(NAMESPACE, ["p1"], {"patched": True}, ("eng",), commit)
        await index.flush(NAMESPACE)
        print(commit, flush=True)
        await index.sweep(NAMESPACE, commit - 2)


def start(root: Path) -> subprocess.Popen[str]:
    code = (
        "import asyncio, sys; from pathlib import Path; from tests.test_faiss import write_and_die; "
        "asyncio.run(write_and_die(Path(sys.argv[1])))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("commits", [1, 3])
async def test_a_killed_process_leaves_whole_transactions_that_undo_clears(tmp_path: Path, commits: int) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    for commit in range(1, commits + 1):
        assert process.stdout.readline() == f"{commit}\n"
    os.kill(process.pid, signal.SIGKILL)
    last = int((process.stdout.read().split() or [commits])[-1])
    process.wait()
    process.stdout.close()
    index = FaissIndex.open(tmp_path)
    await index.undo(NAMESPACE, last)
    found = await index.search_dense(NAMESPACE, points(last)[3].vector, View(last), 300)
    assert len(found) == 200
    assert found[0].id == "p3"
    assert all(s.born <= last and (s.died is None or s.died <= last) for s in await stored(index))
    await index.close()


async def test_a_damaged_namespace_is_named_and_breaks_no_other(tmp_path: Path) -> None:
    other = Namespace(NAMESPACE.collection, "other")
    index = FaissIndex.open(tmp_path)
    for space in (NAMESPACE, other):
        await index.create(space)
    await index.close()
    (file,) = tmp_path.glob("*/default-*/points.sqlite")
    file.write_bytes(b"broken" * 1000)
    index = FaissIndex.open(tmp_path)
    with pytest.raises(IndexUnavailableError, match="docs:default"):
        await index.count(NAMESPACE, None)
    assert await index.count(other, None) == 0
    await index.close()


async def test_memory_is_read_anew_after_a_write_that_failed(tmp_path: Path) -> None:
    index = FaissIndex.open(tmp_path)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    odd = [Point("odd", np.ones(16, np.float32), None, {"x": 1}, document_id=object())]  # type: ignore[arg-type]
    with pytest.raises(IndexUnavailableError, match="default"):
        await index.put(NAMESPACE, [*points(2, 5), *odd], 2)
    assert await index.count(NAMESPACE, None) == 200
    assert await index.count(NAMESPACE, View(2)) == 200
    await index.put(NAMESPACE, points(2, 5), 2)
    assert await index.count(NAMESPACE, View(2)) == 200
    assert await index.count(NAMESPACE, None) == 205
    await index.close()


# --- many at once --------------------------------------------------------------------------------------------------


async def test_a_reader_sees_whole_commits_only_while_a_writer_writes(tmp_path: Path) -> None:
    index = FaissIndex.open(tmp_path)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    committed, is_done = 1, False

    async def write() -> None:
        nonlocal committed, is_done
        for commit in range(2, 9):
            await index.put(NAMESPACE, points(commit), commit)
            await index.delete(NAMESPACE, ["p0"], commit + 1)
            await index.undo(NAMESPACE, commit)
            committed = commit
            await index.sweep(NAMESPACE, commit - 3)
        is_done = True

    async def read() -> int:
        searches = 0
        while not is_done:
            view = View(committed, None, parse_filter({"commit": committed}))
            assert len(await index.search_dense(NAMESPACE, points(1)[0].vector, view, 500)) == 200
            searches += 1
        return searches

    _, *searches = await asyncio.gather(write(), read(), read())
    assert all(searches)
    await index.close()


async def test_removed_points_give_their_memory_back(tmp_path: Path) -> None:
    index = FaissIndex.open(tmp_path, rebuild_from=100)
    await index.create(NAMESPACE)
    for commit in range(1, 4):
        await index.put(NAMESPACE, points(commit), commit)
    before = await index.search_dense(NAMESPACE, points(3)[5].vector, View(3), 300)
    assert await index.sweep(NAMESPACE, 3) == 400
    async with index._partitions.use(NAMESPACE) as partition:
        assert len(partition._postings) == 200
    assert await index.search_dense(NAMESPACE, points(3)[5].vector, View(3), 300) == before
    await index.put(NAMESPACE, points(4), 4)
    assert await index.count(NAMESPACE, View(4)) == 200
    await index.close()


async def test_namespaces_in_memory_are_bounded(tmp_path: Path) -> None:
    index = FaissIndex.open(tmp_path, most_open=2)
    spaces = [Namespace(NAMESPACE.collection, f"n{i}") for i in range(4)]
    for number, space in enumerate(spaces):
        await index.create(space)
        await index.put(space, [Point("a", np.full(16, number + 1, np.float32))], 1)

    async def first(space: Namespace) -> float:
        return float((await index.fetch(space, ["a"], View(1)))["a"].vector[0])

    assert await asyncio.gather(*(first(space) for space in spaces * 5)) == [1.0, 2.0, 3.0, 4.0] * 5
    await first(spaces[0])
    assert index.open_namespaces == 2
    await index.close()


async def test_a_cancelled_write_leaves_a_usable_namespace(tmp_path: Path) -> None:
    index = FaissIndex.open(tmp_path, most_open=1)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    task = asyncio.ensure_future(index.put(NAMESPACE, points(2, 5000), 2))
    await asyncio.sleep(0.02)
    task.cancel()
    await index.undo(NAMESPACE, 1)
    assert await index.count(NAMESPACE, None) == 200
    await index.close()


def test_whatever_sqlite_and_faiss_raise_is_translated() -> None:
    raised: Sequence[Exception] = (RuntimeError("x"), OSError("x"), AssertionError("x"), ValueError("x"))
    for one in raised:
        with pytest.raises(IndexUnavailableError, match="docs:default"), map_errors(NAMESPACE):
            raise one
    for passed in (KeyboardInterrupt(), FilterError("x")):
        with pytest.raises(type(passed)), map_errors(NAMESPACE):
            raise passed
