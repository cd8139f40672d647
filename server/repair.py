"""Make index and catalog agree again: what only one of them has is removed there, or asked to be ingested again.

A crash needs no repair: commits finish or undo what it left. This is for what should never happen: a shard restored
from a backup, a folder removed by hand, a fault of the disk or of ours. Each engine of the index is compared with the
catalog by itself, so that one leg that lacks what the other has is found. A second run finds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from indexers.base import Index, Namespace, StoredPoint, View
from indexers.legs import Leg, legs
from server import catalog_changes, catalog_documents
from server.base import NamespaceState
from server.catalog import Catalog
from server.commit import Writer
from server.originals import Originals

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
    missing_chunks: int = 0  # alive in the catalog, not in the index or not in one of its legs
    documents_to_ingest: int = 0  # … whose next ingestion will write them again
    orphan_originals: int = 0  # objects without a document: removed
    missing_originals: int = 0  # documents whose object is gone: their next ingestion will store it again

    def __add__(self, other: "RepairReport") -> "RepairReport":
        return RepairReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def found_nothing(self) -> bool:
        return self == RepairReport()


async def repair(catalog: Catalog, index: Index, writer: Writer, originals: Originals | None = None) -> RepairReport:
    """Go through every namespace; each is closed to its writers, not to searches, while it is compared."""
    left = await writer.recover()
    report = RepairReport(
        unfinished_commits=sum(each.is_pending for each in left),
        unfinished_purges=sum(each.is_purging for each in left),
        unfinished_sweeps=sum(each.is_sweeping for each in left),
        unfinished_drops=sum(each.is_dropping for each in left),
    )
    for collection in await catalog.collections():
        # before the catalog: a namespace is there first
        found = [(leg, set(await leg.list(collection.spec.name))) for leg in legs(index)]
        states = await catalog.namespaces(collection.spec.name)
        for leg, shards in found:
            for name in sorted(shards - {state.namespace.name for state in states}):
                await leg.drop(Namespace(collection.spec, name))
                report = replace(report, orphan_shards=report.orphan_shards + 1)
        for state in states:
            report += await _repair_namespace(catalog, legs(index), writer, state)
    if originals is not None:
        orphans, missing = await originals.repair()
        report += RepairReport(orphan_originals=orphans, missing_originals=missing)
    return report


async def _repair_namespace(
    catalog: Catalog, engines: Sequence[Leg], writer: Writer, state: NamespaceState
) -> RepairReport:
    async with writer.lease(state.id):
        name, collection = state.namespace.name, state.namespace.collection.name
        state = await catalog.namespace(collection, name)
        if state.commit == 0:
            return RepairReport()
        report = RepairReport()
        for leg in engines:
            if name not in await leg.list(collection):
                await leg.create(state.namespace)
                report = replace(report, missing_shards=report.missing_shards + 1)
            report += await _remove_orphans(catalog, leg, state)
        report += await _find_missing(catalog, engines, state)
        if not report.found_nothing:
            for leg in engines:
                await leg.flush(state.namespace)
        return report


async def _remove_orphans(catalog: Catalog, leg: Leg, state: NamespaceState) -> RepairReport:
    report = RepairReport()
    after: str | None = None
    while True:
        points, after = await leg.scan(state.namespace, None, after, PAGE)
        if points:
            report += await _compare(catalog, leg, state, points)
        if after is None:
            return report


async def _compare(catalog: Catalog, leg: Leg, state: NamespaceState, points: Sequence[StoredPoint]) -> RepairReport:
    ids = sorted({stored.point.id for stored in points})
    known = await catalog.read(catalog_documents.known_chunk_ids, ids)
    orphans = [id_ for id_ in ids if id_ not in known]
    if orphans:
        await leg.purge(state.namespace, orphans)
    undead = 0
    for stored in points:
        died = known.get(stored.point.id)
        if stored.died is None and died is not None:
            await leg.delete(state.namespace, [stored.point.id], died)
            undead += 1
    return RepairReport(orphan_points=len(orphans), undead_points=undead)


async def _find_missing(catalog: Catalog, engines: Sequence[Leg], state: NamespaceState) -> RepairReport:
    """Ask for every document to be ingested again of which an engine lacks a live chunk."""
    missing: dict[str, int] = {}
    after: str | None = None
    while page := await catalog.read(catalog_documents.live_chunk_ids, state.id, after, PAGE):
        ids = [id_ for id_, _ in page]
        there = [await leg.fetch(state.namespace, ids, View(state.commit)) for leg in engines]
        for id_, document_id in page:
            if not all(id_ in points for points in there):
                missing[document_id] = missing.get(document_id, 0) + 1
        after = page[-1][0]
    asked = await catalog.write(catalog_changes.forget_source, sorted(missing)) if missing else []
    return RepairReport(missing_chunks=sum(missing[id_] for id_ in asked), documents_to_ingest=len(asked))
