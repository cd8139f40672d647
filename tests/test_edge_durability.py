"""What a killed process leaves in the embedded index: all that was flushed, and nothing that undo cannot clear."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexers.base import CollectionSpec, Namespace, Point, StoredPoint, View
from indexers.edge import EdgeIndex

NAMESPACE = Namespace(CollectionSpec("docs", 16), "default")


def points(commit: int) -> list[Point]:
    vectors = np.random.default_rng(commit).standard_normal((200, 16)).astype(np.float32)
    return [Point(f"p{i}", v, f"pump c{commit} w{i}", {"commit": commit}) for i, v in enumerate(vectors)]


async def write_and_die(root: Path, when: str) -> None:
    """Run in a process of its own: one whole commit, then more, until SIGKILL comes from outside or from here."""
    index = EdgeIndex.open(root)
    await index.create(NAMESPACE)
    await index.put(NAMESPACE, points(1), 1)
    if when == "unflushed":
        os.kill(os.getpid(), signal.SIGKILL)
    await index.flush(NAMESPACE)
    if when == "flushed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("flushed", flush=True)
    for commit in range(2, 1000):
        await index.put(NAMESPACE, points(commit), commit)
        await index.patch(NAMESPACE, ["p1"], {"patched": True}, ("eng",), commit)
        await index.flush(NAMESPACE)
        if commit % 4 == 0:
            await index.sweep(NAMESPACE, commit - 2)


def start(root: Path, when: str) -> subprocess.Popen[str]:
    code = (
        "import asyncio, sys; from pathlib import Path; from tests.test_edge_durability import write_and_die; "
        "asyncio.run(write_and_die(Path(sys.argv[1]), sys.argv[2]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(root), when], stdout=subprocess.PIPE, text=True)


async def stored(index: EdgeIndex) -> list[StoredPoint]:
    found, after = await index.scan(NAMESPACE, None, None, 100_000)
    assert after is None
    return found


async def assert_consistent(index: EdgeIndex, snapshot: int) -> None:
    """Payload, indexed fields and both legs say the same at a snapshot, whatever of later commits is there."""
    alive = {
        s.point.id
        for s in await stored(index)
        if s.born <= snapshot and not (s.died is not None and s.died <= snapshot)
    }
    view = View(snapshot)
    assert alive == {f"p{i}" for i in range(200)}
    assert await index.count(NAMESPACE, view) == 200
    assert {h.id for h in await index.search_text(NAMESPACE, "pump", view, 1000)} == alive
    assert {h.id for h in await index.search_dense(NAMESPACE, points(1)[0].vector, view, 1000)} == alive


@pytest.mark.parametrize("when", ["unflushed", "flushed"])
async def test_what_was_flushed_survives_sigkill_and_the_rest_can_be_written_again(tmp_path: Path, when: str) -> None:
    with start(tmp_path, when) as process:
        assert process.wait() == -signal.SIGKILL
    index = EdgeIndex.open(tmp_path)
    if when == "unflushed":
        await index.undo(NAMESPACE, 0)
        assert not await stored(index)
        await index.put(NAMESPACE, points(1), 1)
        await index.flush(NAMESPACE)
        await index.close()
        index = EdgeIndex.open(tmp_path)
    await assert_consistent(index, 1)
    assert len(await stored(index)) == 200
    for point in points(1)[:20]:
        hit = (await index.search_dense(NAMESPACE, point.vector, View(1), 1))[0]
        assert hit.id == point.id
        assert hit.score == pytest.approx(1)
    await index.close()


async def test_undo_clears_what_a_kill_left_half_written(tmp_path: Path) -> None:
    for round_ in range(2):
        root = tmp_path / str(round_)
        with start(root, "later") as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.05 + 0.37 * round_)
            process.kill()
        index = EdgeIndex.open(root)
        newest = max(s.born for s in await stored(index))
        committed = max(1, newest - 1)  # the newest may be half there, all before it must be whole
        await assert_consistent(index, committed)
        await index.undo(NAMESPACE, committed)
        after = await stored(index)
        assert max(s.born for s in after) <= committed
        assert all(s.died is None or s.died <= committed for s in after)
        await assert_consistent(index, committed)
        await index.put(NAMESPACE, points(committed + 1), committed + 1)
        await assert_consistent(index, committed + 1)
        await index.close()


async def test_interrupted_create_and_drop_leave_nothing(tmp_path: Path) -> None:
    index = EdgeIndex.open(tmp_path)
    await index.create(NAMESPACE)
    await index.close()
    (home,) = (tmp_path / entry for entry in os.listdir(tmp_path))
    for leftover in (".new-1", ".gone-1"):
        (home / leftover / "shard").mkdir(parents=True)
    index = EdgeIndex.open(tmp_path)
    assert await index.list("docs") == ["default"]
    assert len(os.listdir(home)) == 1
    await index.close()
