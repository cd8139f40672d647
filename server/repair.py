"""Make index and catalog agree again: what only one of them has is removed there, or asked to be ingested again.

A crash needs no repair: commits finish or undo what it left. This is for what should never happen: a shard restored
from a backup, a folder removed by hand, a fault of the disk or of ours. A second run finds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from indexers.base import Index, Namespace, StoredPoint, View
from server import catalog_changes, catalog_documents
from server.base import NamespaceState
from server.catalog import Catalog
from server.commit import Writer

PAGE = 1000  # points, or chunks, compared at once


@dataclass(frozen=True, slots=True)
class RepairReport:
    """How many of each were found, and removed or finished."""

    unfinished_commits: int = 0
    unfinished_purges: int = 0
    unfinished_sweeps: int = 0
    unfinished_drops: int = 0
    orphan_shards: int = 0  # of namespaces that the catalog does not have: dropped
    missing_shards: int = 0  # made anew, empty
    orphan_points: int = 0  # of chunks that the catalog does not have: purged
    undead_points: int = 0  # alive in the index although their version ended: ended there too
    missing_chunks: int = 0  # alive in the catalog, not in the index
    documents_to_ingest: int = 0  # … whose next ingestion will write them again

    def __add__(self, other: "RepairReport") -> "RepairReport":
        return RepairReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def found_nothing(self) -> bool:
        return self == RepairReport()


async def repair(catalog: Catalog, index: Index, writer: Writer) -> RepairReport:
    """Go through every namespace; each is closed to its writers, not to searches, while it is compared."""
    left = await writer.recover()
    report = RepairReport(
        unfinished_commits=sum(each.is_pending for each in left),
        unfinished_purges=sum(each.is_purging for each in left),
        unfinished_sweeps=sum(each.is_sweeping for each in left),
        unfinished_drops=sum(each.is_dropping for each in left),
    )
    for collection in await catalog.collections():
        shards = set(await index.list(collection.spec.name))  # before the catalog: a namespace is there first
        states = await catalog.namespaces(collection.spec.name)
        for name in sorted(shards - {state.namespace.name for state in states}):
            await index.drop(Namespace(collection.spec, name))
            report = replace(report, orphan_shards=report.orphan_shards + 1)
        for state in states:
            report += await _repair_namespace(catalog, index, writer, state)
    return report


async def _repair_namespace(catalog: Catalog, index: Index, writer: Writer, state: NamespaceState) -> RepairReport:
    async with writer.lease(state.id):
        name, collection = state.namespace.name, state.namespace.collection.name
        state = await catalog.namespace(collection, name)
        if state.commit == 0:
            return RepairReport()
        report = RepairReport()
        if name not in await index.list(collection):
            await index.create(state.namespace)
            report = replace(report, missing_shards=1)
        report += await _remove_orphans(catalog, index, state)
        report += await _find_missing(catalog, index, state)
        if not report.found_nothing:
            await index.flush(state.namespace)
        return report


async def _remove_orphans(catalog: Catalog, index: Index, state: NamespaceState) -> RepairReport:
    report = RepairReport()
    after: str | None = None
    while True:
        points, after = await index.scan(state.namespace, None, after, PAGE)
        if points:
            report += await _compare(catalog, index, state, points)
        if after is None:
            return report


async def _compare(
    catalog: Catalog, index: Index, state: NamespaceState, points: Sequence[StoredPoint]
) -> RepairReport:
    ids = sorted({stored.point.id for stored in points})
    known = await catalog.read(catalog_documents.known_chunk_ids, ids)
    orphans = [id_ for id_ in ids if id_ not in known]
    if orphans:
        await index.purge(state.namespace, orphans)
    undead = 0
    for stored in points:
        died = known.get(stored.point.id)
        if stored.died is None and died is not None:
            await index.delete(state.namespace, [stored.point.id], died)
            undead += 1
    return RepairReport(orphan_points=len(orphans), undead_points=undead)


async def _find_missing(catalog: Catalog, index: Index, state: NamespaceState) -> RepairReport:
    """Ask for every document to be ingested again of which the index lacks a live chunk."""
    missing: dict[str, int] = {}
    after: str | None = None
    while page := await catalog.read(catalog_documents.live_chunk_ids, state.id, after, PAGE):
        there = await index.fetch(state.namespace, [id_ for id_, _ in page], View(state.commit))
        for id_, document_id in page:
            if id_ not in there:
                missing[document_id] = missing.get(document_id, 0) + 1
        after = page[-1][0]
    asked = await catalog.write(catalog_changes.forget_source, sorted(missing)) if missing else []
    return RepairReport(missing_chunks=sum(missing[id_] for id_ in asked), documents_to_ingest=len(asked))
