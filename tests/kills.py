"""A scripted ingestion that can be killed and started again: what tests/test_kills.py runs in processes of its own.

`python -m tests.kills` reads jobs from its input, a JSON a line: a folder, and the ends that its runs should come to.
It imports everything once and forks each run from there, before any thread or engine was started.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from indexers.base import NamespaceNotFoundError, View
from indexers.edge import EdgeIndex
from server import faults
from server.base import Changes, DocumentPatch, GoneError, NamespaceState, NotFoundError, PreparedDocument
from server.catalog import Catalog
from server.commit import Writer
from server.database import Backend
from server.dump import dump
from server.lock import DataFolderLock
from server.sqlite import Sqlite
from tests.corpus import COLLECTION, embed, prepare

LEG = 1000  # more than there are chunks: a search returns all that it may see
QUERIES = ("first text", "second", "title letters replaced", "tenant")


def _words(what: str, count: int) -> str:
    return " ".join(f"{what} text, word {number}, more letters here" for number in range(count))


A1 = prepare("a.txt", _words("first a", 12), metadata={"year": 2024.0})
A2 = prepare("a.txt", _words("second a", 9))
B1 = prepare("b.txt", _words("first b", 7), groups=("staff",))
B2 = prepare("b.txt", _words("second b", 8), groups=("staff",))
C1 = prepare("c.txt", _words("first c", 3))
C2 = prepare("c.txt", _words("second c", 5))
D1 = prepare("d.txt", _words("only d", 2), metadata={"year": 2020.0})
LONG = prepare("long.txt", _words("long", 60), chunk_chars=8)  # more points than one slice has
TENANT = prepare("t.txt", _words("tenant", 4), namespace="tenant")
D1_CHANGED = replace(D1, document=replace(D1.document, metadata={"kind": "note"}))

DETOUR = prepare("x.txt", _words("something else", 3))

# Each step is a commit to `default`, or a word; repeating one that was finished changes nothing.
STEPS: tuple[Changes | str, ...] = (
    Changes(upserts=(A1, B1, C1)),
    Changes(
        upserts=(B2, D1), patches=(DocumentPatch(A1.id, {"seen": True}, ("staff",)), DocumentPatch(C1.id, {"n": 1.0}))
    ),
    "sweep",
    Changes(upserts=(C2, LONG), deletes=(A1.id,)),
    "tenant",
    Changes(upserts=(B1, D1_CHANGED)),
    "drop",
    Changes(upserts=(A2,), deletes=(B1.id, LONG.id)),
    Changes(upserts=(C1, D1)),
)


def _uris(step: Changes) -> tuple[dict[str, PreparedDocument], set[str]]:
    """(upserts by uri, deleted uris) of a step."""
    by_id = {p.id: p.document.uri for p in (A1, B1, C1, D1, LONG)}
    return {p.document.uri: p for p in step.upserts}, {by_id[id_] for id_ in step.deletes}


def states(detour_at: int | None = None) -> list[dict[str, str]]:
    """What `default` shows at each commit: uri → version; with the detour as that commit, if one is given."""
    found: list[dict[str, str]] = [{}]
    for step in STEPS:
        if len(found) == detour_at:
            found.append({**found[-1], "x.txt": DETOUR.version})
        if isinstance(step, Changes):
            upserts, deletes = _uris(step)
            changed = {**found[-1], **{uri: p.version for uri, p in upserts.items()}}
            found.append({uri: version for uri, version in changed.items() if uri not in deletes})
    return found


def deleted() -> set[str]:
    """Uris that some commit deletes: from then on they are missing at every commit."""
    return {uri for step in STEPS if isinstance(step, Changes) for uri in _uris(step)[1]}


# --- one run -------------------------------------------------------------------------------------------------------


async def run(folder: Path, *, detour: bool) -> None:
    """Carry the script on from the step where it was left, watched by a reader; at the end write a dump.

    With a detour another commit than the interrupted one comes first.
    """
    with DataFolderLock(folder, "tests.kills"):
        catalog = await Catalog.open(_backend(folder))
        index = EdgeIndex.open(folder / "index")
        writer = Writer(catalog, index, token_bits_of=COLLECTION.embedder_fingerprint, retention_s=0, grace_s=0)
        await catalog.create_collection(COLLECTION)
        state = await catalog.namespace("docs", "default", create=True)
        watching = asyncio.create_task(_watch(catalog, index, folder))
        if detour:
            await writer.commit(state, Changes(upserts=(DETOUR,)))
        for number in range(_done(folder), len(STEPS)):
            await _step(catalog, writer, state, STEPS[number])
            _note(folder, number + 1)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await writer.close()
        await index.close()
        # Opened anew: while it runs, the engine's idf counts removed points too, how many depends on what happened.
        index = EdgeIndex.open(folder / "index")
        lines = [line async for line in dump(catalog, index)] + await _searches(catalog, index)
        (folder / "dump").write_text("\n".join(sorted(lines)))
        await index.close()
        await catalog.close()


def _backend(folder: Path) -> Backend:
    """SQLite, or the database that the file `postgres` names: its URL, then the password."""
    try:
        url, password = (folder / "postgres").read_text().splitlines()
    except FileNotFoundError:
        return Sqlite(folder / "catalog.sqlite")
    from server.postgres import Limits, Postgres

    # the index dies with its process: nothing of it can still be under way
    return Postgres(url, password, Limits(readers=2, writers=1, takeover_s=0))


async def _step(catalog: Catalog, writer: Writer, state: NamespaceState, step: Changes | str) -> None:
    if isinstance(step, Changes):
        await writer.commit(state, step)
    elif step == "sweep":
        await writer.sweep(state)
    elif step == "tenant":
        await writer.commit(await catalog.namespace("docs", "tenant", create=True), Changes(upserts=(TENANT,)))
    else:
        await writer.recover()
        with suppress(NotFoundError):
            await writer.drop(await catalog.namespace("docs", "tenant"))


def _done(folder: Path) -> int:
    try:
        return int((folder / "step").read_text())
    except FileNotFoundError:
        return 0


def _note(folder: Path, step: int) -> None:
    (folder / "step.new").write_text(str(step))
    (folder / "step.new").replace(folder / "step")


async def _searches(catalog: Catalog, index: EdgeIndex) -> list[str]:
    """What both legs answer, scores to four digits."""
    state = await catalog.namespace("docs", "default")
    found = []
    for query in QUERIES:
        view = View(state.commit, frozenset({"staff"}))
        text = await index.search_text(state.namespace, query, view, 50)
        dense = await index.search_dense(state.namespace, embed(query).vector, view, 50, exact=True)
        for leg, hits in (("text", text), ("dense", dense)):
            found.append(json.dumps([leg, query, [(hit.id, round(hit.score, 4)) for hit in hits]]))
    return found


# --- the reader ----------------------------------------------------------------------------------------------------


async def _watch(catalog: Catalog, index: EdgeIndex, folder: Path) -> None:
    """Search without pause, and write down at once what was seen, so that a kill loses nothing of it."""
    seen = os.open(folder / "seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    legs = 0
    while True:
        state = await catalog.namespace("docs", "default")
        view = View(state.commit)
        if not state.commit:
            await asyncio.sleep(0.001)
            continue
        legs += 1
        try:
            if legs % 2:
                hits = await index.search_text(state.namespace, "title", view, LEG)
            else:
                hits = await index.search_dense(state.namespace, embed("x").vector, view, LEG, exact=True)
            chunks = await catalog.chunks(state.id, [hit.id for hit in hits], state.commit)
        except (GoneError, NamespaceNotFoundError):
            continue
        if await catalog.oldest_commit(state.id) > state.commit:  # swept meanwhile: here no search is given its grace
            continue
        documents: dict[str, dict[str, list[int]]] = {}
        for chunk in chunks.values():
            of = documents.setdefault(chunk.uri, {}).setdefault(chunk.version, [0, chunk.total_chunks])
            of[0] += 1
        os.write(seen, json.dumps([state.commit, documents]).encode() + b"\n")
        await asyncio.sleep(0.002)


# --- forking -------------------------------------------------------------------------------------------------------


def _fork(folder: Path, end: str | float | None) -> tuple[int, float]:
    """One run in a process of its own, killed at a fault point or after so many seconds; (exit status, seconds).

    With "detour" it is not killed, and takes one.
    """
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.environ["REFDESK_FAULT"] = end if isinstance(end, str) and end != "detour" else ""
        faults.arm()
        status = 1
        try:
            asyncio.run(run(folder, detour=end == "detour"))
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    if isinstance(end, float):
        time.sleep(end)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - started


def main(jobs: Sequence[str]) -> None:
    for job in jobs:
        folder, ends = json.loads(job)
        print(json.dumps([folder, [_fork(Path(folder), end) for end in ends]]), flush=True)
        shutil.rmtree(Path(folder) / "index")  # 100 MB, perhaps of memory


if __name__ == "__main__":
    main(sys.stdin.readlines())
