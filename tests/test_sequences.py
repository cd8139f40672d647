"""Any sequence of writes, patches, deletes (by filter too) and sweeps shows at each commit what a plain dict would."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from indexers.base import View
from indexers.filter import parse_filter
from indexers.memory import MemoryIndex
from server import tables
from server.base import DocumentPatch
from server.delete import delete_matching
from server.repair import repair
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.corpus import prepare

# Thousands of durable commits are quick where there is no disk to wait for.
MEMORY_DISK = Path("/dev/shm") if Path("/dev/shm").is_dir() else None

URIS = st.sampled_from(["a", "b", "c"])
TEXTS = st.sampled_from(
    ["", "x", "one text of forty-one letters, so two chunks", "another one, of the same length, cut in two"]
)
FILTERS: dict[str, tuple[object, Callable[[float | None], bool]]] = {
    "one": ({"value": 1}, lambda value: value == 1.0),
    "no one": ({"value": {"$ne": 1}}, lambda value: value != 1.0),
    "none": ({"value": {"$exists": False}}, lambda value: value is None),
    "large": ({"value": {"$gt": 1.5}}, lambda value: value is not None and value > 1.5),
}
OPERATIONS = st.one_of(
    st.tuples(st.just("upsert"), st.dictionaries(URIS, TEXTS, min_size=1)),
    st.tuples(st.just("patch"), st.dictionaries(URIS, st.sampled_from([1.0, 2.0]), min_size=1)),
    st.tuples(st.just("delete"), st.sets(URIS, min_size=1)),
    st.tuples(st.just("delete matching"), st.sampled_from(sorted(FILTERS))),
    st.tuples(st.just("sweep"), st.floats(0, 1)),
    st.tuples(st.just("recover"), st.none()),
)


@dataclass(slots=True)
class Model:
    """What should be visible, in plain dicts: for each commit uri → text; beside them the present metadata."""

    history: list[dict[str, str]] = field(default_factory=lambda: [{}])
    metadata: dict[str, dict[str, float]] = field(default_factory=dict)

    def commit(self, texts: dict[str, str]) -> None:
        self.history.append({**self.history[-1], **texts})

    def delete(self, uris: set[str]) -> None:
        """A deleted document is gone from every commit."""
        self.history.append(dict(self.history[-1]))
        self.history = [{u: t for u, t in state.items() if u not in uris} for state in self.history]
        self.metadata = {uri: m for uri, m in self.metadata.items() if uri not in uris}


async def step(bench: Bench, model: Model, kind: str, argument: object) -> None:
    present = model.history[-1]
    documents = {uri: prepare(uri, "", namespace="default").id for uri in present}
    if kind == "upsert" and isinstance(argument, dict):
        changed = {u: t for u, t in argument.items() if present.get(u) != t or model.metadata[u]}
        number = await bench.commit(*(prepare(uri, text) for uri, text in argument.items()))
        if changed:
            model.commit(argument)
            model.metadata |= {uri: {} for uri in argument}
    elif kind == "patch" and isinstance(argument, dict):
        argument = {uri: value for uri, value in argument.items() if uri in present}
        changed = {u: v for u, v in argument.items() if model.metadata[u] != {"value": v}}
        patches = [DocumentPatch(documents[uri], {"value": value}) for uri, value in argument.items()]
        number = await bench.commit(patches=patches)
        if changed:
            model.commit({})
            model.metadata |= {uri: {"value": value} for uri, value in argument.items()}
    elif kind == "delete" and isinstance(argument, set):
        number = await bench.commit(deletes=[documents[uri] for uri in argument if uri in present])
        if argument & set(present):
            model.delete(argument)
    elif kind == "delete matching" and isinstance(argument, str):
        raw, may_go = FILTERS[argument]
        gone = {uri for uri in present if may_go(model.metadata[uri].get("value"))}
        wanted = parse_filter(raw)
        assert wanted is not None
        deleted = await delete_matching(bench.catalog, bench.writer, bench.state, wanted, None)
        assert deleted.documents == len(gone)
        if not gone:
            return
        model.delete(gone)
        number = deleted.commit
    elif kind == "sweep" and isinstance(argument, float):
        times = await bench.catalog.read(
            lambda c: c.execute(select(tables.commits.c.committed_at).order_by(tables.commits.c.number)).scalars().all()
        )
        retention_s = time.time() - times[int(argument * (len(times) - 1))] if times else 0
        await bench.writer.sweep(bench.state, retention_s=retention_s)
        return
    else:
        assert await bench.writer.recover() == []
        return
    assert number == len(model.history) - 1


async def check(bench: Bench, model: Model) -> None:
    if len(model.history) == 1:
        return
    oldest = await bench.catalog.oldest_commit(bench.state.id)
    assert oldest < len(model.history)
    for snapshot in range(max(1, oldest), len(model.history)):
        expected = {uri: text for uri, text in model.history[snapshot].items() if text}
        assert await bench.visible(snapshot) == expected
    page, _ = await bench.catalog.documents(bench.state.id)
    assert {document.uri: document.metadata for document in page} == model.metadata
    for document in page:
        assert await bench.catalog.text(document.id) == model.history[-1][document.uri]
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


@settings(max_examples=30, deadline=None)
@given(st.lists(OPERATIONS, min_size=1, max_size=14))
def test_any_sequence_of_changes_shows_what_a_dict_would(operations: list[tuple[str, object]]) -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(dir=MEMORY_DISK))
        bench = await Bench.open(Sqlite(folder / "catalog.sqlite", readers=1), MemoryIndex())
        model = Model()
        try:
            for kind, argument in operations:
                await step(bench, model, kind, argument)
            await check(bench, model)
            await bench.writer.sweep(bench.state, retention_s=0)
            await check(bench, model)
            if len(model.history) > 1:
                alive = await bench.index.count(bench.state.namespace, View(len(model.history) - 1))
                assert await bench.index.count(bench.state.namespace, None) == alive
                counts = await bench.counts()
                assert counts["versions"] == counts["lives"] == counts["documents"] == len(model.history[-1])
        finally:
            await bench.close()
            shutil.rmtree(folder)

    asyncio.run(run())
