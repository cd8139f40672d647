"""Killed at every named place and at random instants, a script started again reaches the state of an undisturbed one.

A reader that searches throughout sees only whole commits: no partial document, no two versions of one.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.faults import POINTS
from tests import kills

KILLED = -signal.SIGKILL
MEMORY_DISK = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
End = str | float | None
Runs = dict[str, list[tuple[int, float]]]  # folder name → (exit status, seconds) of each run in it
RunAll = Callable[[Sequence[tuple[Path, list[End]]]], Runs]

# What must have happened before a point is passed, or at which passing it is worth dying.
FIRST: dict[str, list[End]] = {
    "undo.index": ["commit.flushed:2"],
    "undo.flushed": ["commit.put:2"],
    "undo.finished": ["commit.patched:1"],
}
AT = {"commit.put": 4, "commit.deleted": 3, "commit.flushed": 3, "commit.catalog_written": 2, "commit.applied": 3}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=MEMORY_DISK))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def make_folder() -> Callable[[Path], None]:
    """Makes a run's folder. The live tests put into it where the catalog's PostgreSQL is."""
    return Path.mkdir


@pytest.fixture(scope="module")
def run_all(make_folder: Callable[[Path], None]) -> RunAll:
    """Runs jobs, (folder, how each run in it ends), in two processes."""

    def work(some: Sequence[tuple[Path, list[End]]]) -> str:
        lines = "".join(json.dumps([str(folder), ends]) + "\n" for folder, ends in some)
        command = [sys.executable, "-m", "tests.kills"]
        return subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout

    def run(jobs: Sequence[tuple[Path, list[End]]]) -> Runs:
        found: Runs = {}
        for made, _ in jobs:
            make_folder(made)
        with ThreadPoolExecutor(2) as pool:
            for output in pool.map(work, (jobs[::2], jobs[1::2])):
                found.update((Path(at).name, runs) for at, runs in map(json.loads, output.splitlines()))
        return found

    return run


@pytest.fixture(scope="module")
def undisturbed(folder: Path, run_all: RunAll) -> tuple[Path, float]:
    """(folder, seconds) of a run that nothing interrupts."""
    ((status, seconds),) = run_all([(folder / "undisturbed", [None])])["undisturbed"]
    assert status == 0
    return folder / "undisturbed", seconds


def check_dump(disturbed: Path, undisturbed: Path, how: object) -> None:
    got, wanted = ((at / "dump").read_text().splitlines() for at in (disturbed, undisturbed))
    assert sorted(set(got) ^ set(wanted)) == [], how
    assert len(got) == len(wanted), how


def check_seen(at: Path, how: object, detour_at: int | None = None) -> int:
    """Every observation is a commit's whole state, less what was deleted meanwhile; returns how many there are."""
    states, deleted = kills.states(detour_at), kills.deleted()
    lines = (at / "seen").read_text().splitlines() if (at / "seen").exists() else []
    for line in lines:
        commit, documents = json.loads(line)
        for uri, versions in documents.items():
            assert list(versions) == [states[commit].get(uri)], (how, commit, uri)
            assert all(seen == total for seen, total in versions.values()), (how, commit, uri)
        assert set(states[commit]) - set(documents) <= deleted, (how, commit)
    return len(lines)


def test_the_undisturbed_run_ends_as_scripted(undisturbed: tuple[Path, float]) -> None:
    at, _ = undisturbed
    lines = [json.loads(line) for line in (at / "dump").read_text().splitlines()]
    rows = [line for line in lines if isinstance(line, dict)]
    present = {row["document_id"]: row["version"] for row in rows if row["kind"] == "version" and row["is_present"]}
    assert sorted(present.values()) == sorted(kills.states()[-1].values())
    assert {row["id"] for row in rows if row["kind"] == "tombstone"} == {kills.B1.id, kills.LONG.id, kills.TENANT.id}
    assert [row for row in rows if row["kind"] == "purge"] == []
    assert any(row["kind"] == "point" and not row["is_alive"] for row in rows), "something ended and is not yet swept"
    assert check_seen(at, "undisturbed") >= 5, "the reader looked on: how often depends on the machine"


def test_killed_at_every_named_place(folder: Path, undisturbed: tuple[Path, float], run_all: RunAll) -> None:
    jobs: list[tuple[Path, list[End]]] = []
    for point in POINTS:
        end = f"{point}:{AT.get(point, 1)}"
        jobs.append((folder / point, [*FIRST.get(point, []), end, None]))
    results = run_all(jobs)
    for made, ends in jobs:
        statuses = [status for status, _ in results[made.name]]
        assert statuses == [KILLED] * (len(ends) - 1) + [0], (made.name, statuses)
        check_dump(made, undisturbed[0], made.name)
        check_seen(made, made.name)


def test_killed_at_random_instants(folder: Path, undisturbed: tuple[Path, float], run_all: RunAll) -> None:
    at, seconds = undisturbed
    jobs: list[tuple[Path, list[End]]] = [
        (folder / f"random-{n}", [random.uniform(0.02, seconds), None]) for n in range(10)
    ]
    results = run_all(jobs)
    for made, ends in jobs:
        assert results[made.name][0][0] in {KILLED, 0}, ends
        assert results[made.name][1][0] == 0, ends
        check_dump(made, at, ends)
        check_seen(made, ends)


def test_what_was_interrupted_leaves_no_trace_in_another_commit(folder: Path, run_all: RunAll) -> None:
    """Killed in one commit at various places, the next one being another: as if the first had never begun."""
    points = ["commit.begun:3", "commit.put:3", "commit.put:4", "commit.deleted:3", "commit.flushed:3"]
    jobs: list[tuple[Path, list[End]]] = [(folder / f"detour-{point}", [point, "detour"]) for point in points]
    results = run_all(jobs)
    for made, ends in jobs:
        assert [status for status, _ in results[made.name]] == [KILLED, 0], ends
        check_dump(made, jobs[0][0], ends)
        check_seen(made, ends, detour_at=3)
