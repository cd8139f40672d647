"""Commits: all of one is visible or nothing, older states stay readable, deleting and sweeping leave nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexers.base import IndexerError, Namespace, View
from indexers.memory import MemoryIndex
from server import catalog_names, catalog_plan
from server.base import Changes, DocumentPatch, GoneError, NotFoundError
from server.dump import dump
from server.repair import RepairReport, repair
from server.sqlite import Sqlite
from tests.commit_bench import FINGERPRINT, Bench
from tests.corpus import COLLECTION, prepare
from tests.test_catalog import OpenBackend


@pytest.fixture
def backend(tmp_path: Path) -> OpenBackend:
    return lambda: Sqlite(tmp_path / "catalog.sqlite", readers=1)


@pytest.fixture
async def bench(backend: OpenBackend) -> AsyncIterator[Bench]:
    opened = await Bench.open(backend(), MemoryIndex())
    yield opened
    await opened.close()


A1 = prepare("a.txt", "the first text of a, which is cut into more chunks than one", metadata={"year": 2024.0})
A2 = prepare("a.txt", "the second text of a, which is longer than forty letters too", metadata={"year": 2025.0})
B1 = prepare("b.txt", "a text of b")


# --- what a commit makes visible -----------------------------------------------------------------------------------


async def test_replacing_is_one_step_and_the_old_stays_readable(bench: Bench) -> None:
    assert await bench.commit(A1, B1) == 1
    assert await bench.commit(A2) == 2
    assert await bench.visible(1) == {"a.txt": A1.document.text, "b.txt": B1.document.text}
    assert await bench.visible(2) == {"a.txt": A2.document.text, "b.txt": B1.document.text}
    assert await bench.catalog.text(A1.id, A1.version) == A1.document.text
    assert await bench.commit(A1) == 3
    assert await bench.visible(2) == {"a.txt": A2.document.text, "b.txt": B1.document.text}
    assert await bench.visible(3) == {"a.txt": A1.document.text, "b.txt": B1.document.text}


async def test_what_changes_nothing_is_no_commit(bench: Bench) -> None:
    assert await bench.commit() == 0
    assert await bench.commit(A1) == 1
    assert await bench.commit(A1, deletes=["doc_unknown"]) == 1
    assert await bench.commit(patches=[DocumentPatch(A1.id, {"year": 2024.0}, ())]) == 1


async def test_the_last_of_several_under_one_uri_wins(bench: Bench) -> None:
    assert await bench.commit(A1, A2) == 1
    assert await bench.visible(1) == {"a.txt": A2.document.text}


async def test_other_metadata_makes_no_new_version(bench: Bench) -> None:
    await bench.commit(A1)
    before = await bench.counts()
    changed = replace(A1, document=replace(A1.document, metadata={"kind": "x"}, source_sha256="other bytes"))
    assert await bench.commit(replace(changed, groups=("staff",))) == 2
    assert await bench.counts() == before
    stored = await bench.catalog.document(bench.state.id, A1.id)
    assert (stored.metadata, stored.groups, stored.source_sha256) == ({"kind": "x"}, ("staff",), "other bytes")
    assert await bench.visible(1) == await bench.visible(2) == {"a.txt": A1.document.text}
    points, _ = await bench.index.scan(bench.state.namespace, View(2), None, 10)
    assert {(tuple(p.point.metadata.items()), p.point.groups) for p in points} == {((("kind", "x"),), ("staff",))}


async def test_a_patch_reaches_index_and_hits(bench: Bench) -> None:
    await bench.commit(A1, B1)
    assert await bench.commit(patches=[DocumentPatch(A1.id, {"seen": True}, ("staff",), "bytes-2", "text-2")]) == 2
    stored = await bench.catalog.document(bench.state.id, A1.id)
    assert (stored.metadata, stored.groups) == ({"year": 2024.0, "seen": True}, ("staff",))
    assert (stored.source_sha256, stored.extractor, stored.version) == ("bytes-2", "text-2", A1.version)
    public = await bench.index.count(bench.state.namespace, View(2, frozenset()))
    assert public == len(B1.chunks)
    ids = catalog_plan.chunk_ids(bench.state, A1.id, A1.version, len(A1.chunks))
    for snapshot in (1, 2):  # the present groups are checked whatever the commit that is read
        chunks = await bench.catalog.chunks(bench.state.id, ids, snapshot)
        assert {chunk.groups for chunk in chunks.values()} == {("staff",)}
    with pytest.raises(NotFoundError, match="there is no document 'doc_unknown'"):
        await bench.commit(patches=[DocumentPatch("doc_unknown", {"seen": True})])


async def test_deleting_takes_every_version_from_both_sides(bench: Bench) -> None:
    await bench.commit(A1, B1)
    await bench.commit(A2)
    assert await bench.commit(deletes=[A1.id]) == 3
    with pytest.raises(GoneError):
        await bench.commit(patches=[DocumentPatch(A1.id, {"seen": True})])
    for snapshot in (1, 2, 3):
        assert await bench.visible(snapshot) == {"b.txt": B1.document.text}
    assert await bench.index.count(bench.state.namespace, None) == len(B1.chunks)
    counts = await bench.counts()
    assert (counts["documents"], counts["versions"], counts["purges"], counts["tombstones"]) == (1, 1, 0, 1)
    with pytest.raises(GoneError):
        await bench.catalog.text(A1.id, A1.version)
    assert await bench.commit(A1) == 4
    assert (await bench.counts())["tombstones"] == 0
    assert await bench.visible(4) == {"a.txt": A1.document.text, "b.txt": B1.document.text}


async def test_a_document_without_text(bench: Bench) -> None:
    empty = prepare("empty.txt", "")
    assert await bench.commit(empty, B1) == 1
    assert (await bench.catalog.document(bench.state.id, empty.id)).total_chunks == 0
    assert await bench.commit(deletes=[empty.id]) == 2


# --- failures and cancellation -------------------------------------------------------------------------------------


async def test_a_failed_commit_shows_nothing_and_is_undone_by_the_next(bench: Bench) -> None:
    await bench.commit(A1)
    long = prepare("long.txt", "x" * 600, chunk_chars=1)  # several slices: the first is in the index before the failure
    bad = prepare("bad.txt", "wrong dimension", dimension=8)
    with pytest.raises(IndexerError):
        await bench.commit(A2, long, bad)
    assert (await bench.catalog.namespace("docs", "default")).commit == 1
    assert await bench.visible(1) == {"a.txt": A1.document.text}
    assert await bench.index.count(bench.state.namespace, None) > len(A1.chunks)
    assert await bench.commit(B1) == 2
    assert await bench.visible(2) == {"a.txt": A1.document.text, "b.txt": B1.document.text}
    assert await bench.index.count(bench.state.namespace, None) == len(A1.chunks) + len(B1.chunks)


async def test_a_cancelled_caller_does_not_halve_a_commit(bench: Bench) -> None:
    asked = asyncio.create_task(bench.commit(A1, B1))
    await asyncio.sleep(0.001)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await bench.writer.close()
    assert await bench.visible(1) == {"a.txt": A1.document.text, "b.txt": B1.document.text}


async def test_commits_to_one_namespace_queue(bench: Bench) -> None:
    documents = [prepare(f"{n}.txt", f"text {n}") for n in range(8)]
    numbers = await asyncio.gather(*(bench.commit(prepared) for prepared in documents))
    assert sorted(numbers) == list(range(1, 9))
    assert len(await bench.visible(8)) == 8


async def test_a_swept_horizon_never_goes_back(bench: Bench) -> None:
    await bench.commit(A1)
    await bench.commit(A2)
    assert await bench.writer.sweep(bench.state) == 0
    assert await bench.writer.sweep(bench.state, retention_s=0) == len(A1.chunks)
    assert await bench.catalog.oldest_commit(bench.state.id) == 2
    assert await bench.writer.sweep(bench.state) == 0
    assert await bench.catalog.oldest_commit(bench.state.id) == 2
    assert (await bench.counts())["versions"] == 1
    with pytest.raises(NotFoundError, match="retention"):
        await bench.catalog.text(A1.id, A1.version)


async def test_a_text_that_came_back_outlives_the_sweep_of_its_first_life(bench: Bench) -> None:
    for prepared in (A1, A2, A1):
        await bench.commit(prepared)
    await bench.writer.sweep(bench.state, retention_s=0)
    assert await bench.visible(3) == {"a.txt": A1.document.text}
    assert (await bench.counts())["lives"] == 1
    assert await bench.index.count(bench.state.namespace, None) == len(A1.chunks)


# --- namespaces ----------------------------------------------------------------------------------------------------


async def test_a_dropped_namespace_is_gone_with_all_in_it(bench: Bench) -> None:
    await bench.commit(A1, B1)
    await bench.writer.drop(bench.state)
    assert await bench.index.list("docs") == []
    with pytest.raises(NotFoundError):
        await bench.catalog.namespace("docs", "default")
    with pytest.raises(NotFoundError, match="dropped"):
        await bench.commit(A1)
    with pytest.raises(GoneError):
        await bench.catalog.text(A1.id)
    counts = await bench.counts()
    assert {name for name, count in counts.items() if count} == {"tombstones"}
    bench.state = await bench.catalog.namespace("docs", "default", create=True)
    assert await bench.commit(A1) == 1
    assert await bench.visible(1) == {"a.txt": A1.document.text}


async def test_namespaces_know_nothing_of_each_other(bench: Bench) -> None:
    await bench.commit(A1)
    tenant = await bench.catalog.namespace("docs", "tenant", create=True)
    mine = prepare("a.txt", "the tenant's text", namespace="tenant")
    assert await bench.writer.commit(tenant, Changes([mine])) == 1
    assert mine.id != A1.id
    assert await bench.visible(1) == {"a.txt": A1.document.text}
    with pytest.raises(NotFoundError):
        await bench.catalog.document(tenant.id, A1.id)
    assert await bench.writer.commit(tenant, Changes(deletes=[A1.id])) == 1
    assert await bench.visible(1) == {"a.txt": A1.document.text}


# --- repair --------------------------------------------------------------------------------------------------------


async def test_repair_finds_each_kind_once(bench: Bench) -> None:
    await bench.commit(A1, B1)
    await bench.commit(A2)
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing
    space, index = bench.state.namespace, bench.index
    stray = (await index.scan(space, View(2), None, 1))[0][0].point
    await index.put(space, [replace(stray, id="stray")], 2)  # an orphan
    ended = catalog_plan.chunk_ids(bench.state, A1.id, A1.version, len(A1.chunks))
    await index.put(space, [replace(stray, id=ended[0])], 2)  # alive although its version ended
    live = catalog_plan.chunk_ids(bench.state, B1.id, B1.version, len(B1.chunks))
    await index.purge(space, live)  # lost
    await index.create(Namespace(COLLECTION.spec, "nobody's"))
    await bench.catalog.write(catalog_names.begin, bench.state.id)  # as a crash leaves it
    report = await repair(bench.catalog, index, bench.writer)
    assert report == RepairReport(
        unfinished_commits=1,
        orphan_shards=1,
        orphan_points=1,
        undead_points=1,
        missing_chunks=len(live),
        documents_to_ingest=1,
    )
    assert (await repair(bench.catalog, index, bench.writer)).found_nothing
    assert await bench.catalog.lookup(bench.state.id, ["b.txt"]) == {}
    await bench.commit(B1)
    assert await bench.visible(3) == {"a.txt": A2.document.text, "b.txt": B1.document.text}


async def test_a_lost_shard_is_made_again_and_filled_by_ingestion(bench: Bench) -> None:
    await bench.commit(A1, B1)
    before = sorted([line async for line in dump(bench.catalog, bench.index)])
    await bench.index.drop(bench.state.namespace)
    report = await repair(bench.catalog, bench.index, bench.writer)
    assert (report.missing_shards, report.documents_to_ingest) == (1, 2)
    await bench.commit(A1, B1)
    assert sorted([line async for line in dump(bench.catalog, bench.index)]) == before


async def test_token_vectors_are_those_of_the_commit(bench: Bench) -> None:
    await bench.commit(A1)
    ids = catalog_plan.chunk_ids(bench.state, A1.id, A1.version, len(A1.chunks))
    chunks = await bench.catalog.chunks(bench.state.id, ids, 1, token_bits_of=FINGERPRINT)
    for id_, embedding in zip(ids, A1.embeddings, strict=True):
        stored = chunks[id_].token_bits
        assert stored is not None
        assert embedding.token_bits is not None
        np.testing.assert_array_equal(stored, embedding.token_bits)
