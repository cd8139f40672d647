"""One namespace in Qdrant's engine: each thing done to a shard, as a short blocking call.

The engine holds the interpreter while it works, so whoever calls cuts writes into slices of at most MAX_SLICE points
and lets others run in between. It is never asked to optimise: an unindexed scan is fast enough and always fresh.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import qdrant_edge as engine

from indexers.base import (
    Float32,
    Hit,
    IndexerError,
    IndexUnavailableError,
    InvalidPointError,
    Metadata,
    Point,
    StoredPoint,
    View,
)
from indexers.bm25 import Bm25
from indexers.edge_filter import (
    BORN,
    DIED,
    GROUPS,
    MAX_NUMERIC_FIELDS,
    NUMBERS,
    TOKENS,
    Extent,
    compile_view,
)
from indexers.edge_folder import Folder
from indexers.edge_payload import DENSE, ID, TEXT, carried_id, carries_id, decode, encode, sparse, stored_terms
from indexers.keywords import PUBLIC
from indexers.point import checked_vector

MAX_SLICE = 64  # points of one call: 6 ms of a held interpreter
_PAGE = 1000  # ids of one scroll: 5 ms
_SPARE = 8  # hits asked for beyond top_k, to see whether the last place is shared
_MOST_TIES = 1024  # of more equal scores than these at the last place, the engine chooses which are returned
_RESCORED = 100  # quantised scores choose at least so many candidates for the exact ones, …
_OVERSAMPLING = 2.0  # … and so many for each hit
_INDEXES: dict[str, engine.KeywordIndexParams | engine.IntegerIndexParams] = {
    ID: engine.KeywordIndexParams(),
    TOKENS: engine.KeywordIndexParams(),
    GROUPS: engine.KeywordIndexParams(),
    BORN: engine.IntegerIndexParams(lookup=False, range=True),
    DIED: engine.IntegerIndexParams(lookup=False, range=True),
    NUMBERS: engine.IntegerIndexParams(lookup=False, range=True),
}
_DISTANCES = {
    "cosine": engine.Distance.Cosine,
    "dotproduct": engine.Distance.Dot,
    "euclidean": engine.Distance.Euclid,
}

T = TypeVar("T")


@contextmanager
def map_errors(what: object) -> Iterator[None]:
    """Translate whatever the engine or its files raise; the engine has no exception classes of its own."""
    try:
        yield
    except IndexerError:
        raise
    except Exception as exc:
        raise IndexUnavailableError(f"{what}: the vector engine failed: {exc}; retry, or run `refdesk repair`") from exc
    except BaseException as exc:
        if type(exc).__module__ != "pyo3_runtime":  # a panic in the engine is no Exception
            raise
        raise IndexUnavailableError(f"{what}: the vector engine panicked: {exc}; restart refdesk") from exc


def create_shard(path: Path, folder: Folder, *, is_large: bool) -> None:
    """Make an empty shard's files at `path`; the shard is left closed.

    A large one has payload indexes (24 MiB, 100 ms) and its vectors mapped ahead (64 MiB at least); a small one, of
    some hundred points, searches as fast without. Neither has a log: a commit counts once `flush` has returned, and
    what a crash left above it is undone.
    """
    memory = engine.Memory.Cached if is_large else engine.Memory.Cold
    distance = _DISTANCES[folder.spec.metric]
    config = engine.EdgeConfig(
        vectors={DENSE: engine.EdgeVectorParams(folder.spec.dimension, distance, memory=memory)},
        sparse_vectors={TEXT: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
        quantization_config=engine.TurboQuantQuantizationConfig(memory=memory),
        max_search_threads=1,  # there is one segment, so nothing to search in parallel
        wal_enabled=False,
    )
    path.mkdir()
    with map_errors(folder.name):
        shard = engine.EdgeShard.create(str(path), config)
        for field, parameters in _INDEXES.items() if is_large else ():
            shard.update(engine.UpdateOperation.create_field_index(field, parameters))
        shard.flush()
        shard.close()


class Shard:
    """An open shard. One writer at a time; searches may run beside it."""

    def __init__(self, folder: Folder) -> None:
        self.spec = folder.spec
        self.folder = folder
        self._slots = {field: slot for slot, field in enumerate(folder.numeric_fields)}
        self._bm25 = Bm25(folder.spec.language)
        with map_errors(folder.name):
            self._engine = engine.EdgeShard.load(str(folder.shard_path))
            self.is_large = bool(self._engine.info().payload_schema)
        self._extent = Extent()
        self.measure()

    def flush(self) -> None:
        with map_errors(self.folder.name):
            self._engine.flush()

    def close(self) -> None:
        with map_errors(self.folder.name):
            self._engine.flush()
            self._engine.close()

    # --- searching

    def search_dense(self, vector: Float32, view: View, top_k: int, exact: bool) -> list[Hit]:
        query = engine.Query.Nearest(checked_vector(self.spec, vector).tolist(), using=DENSE)
        if exact:
            quantization = engine.QuantizationSearchParams(ignore=True)
        else:
            oversampling = max(_OVERSAMPLING, _RESCORED / max(top_k, 1))
            quantization = engine.QuantizationSearchParams(rescore=True, oversampling=oversampling)
        params = engine.SearchParams(exact=exact, quantization=quantization)
        sign = -1.0 if self.spec.metric == "euclidean" else 1.0
        return self._search(query, view, top_k, params, sign)

    def search_text(self, question: str, view: View, top_k: int) -> list[Hit]:
        terms = self._bm25.question(question)
        if not len(terms):
            return []
        return self._search(engine.Query.Nearest(sparse(terms), using=TEXT), view, top_k, engine.SearchParams(), 1.0)

    def _search(
        self, query: engine.Query, view: View, top_k: int, params: engine.SearchParams, sign: float
    ) -> list[Hit]:
        """The engine breaks ties as it likes: ask for a few hits more, and for more still while the last place is
        shared, so that among equal scores the smallest ids are returned."""
        limit = top_k + _SPARE if top_k > 0 else 0
        while limit:
            found = self._query(query, view, limit, params)
            if len(found) < limit or found[-1].score != found[top_k - 1].score or limit >= _MOST_TIES:
                return self._best(found, top_k, sign)
            limit *= 4
        return []

    def _best(self, found: Sequence[engine.ScoredPoint], top_k: int, sign: float) -> list[Hit]:
        """The first `top_k` hits; of equal scores the smallest ids come first."""
        versions = [point.id for point in found]
        negated = [-sign * point.score for point in found]
        carriers = [version for version in versions if carries_id(version)]
        if len(carriers) == len(versions):  # ordered as the ids are: only what is returned need be translated
            best = sorted(zip(negated, carriers, strict=True))[:top_k]
            return [Hit(carried_id(version), -score) for score, version in best]
        return [Hit(id_, -score) for score, id_ in sorted(zip(negated, self._ids(versions), strict=True))[:top_k]]

    def _query(
        self, query: engine.Query, view: View, limit: int, params: engine.SearchParams
    ) -> list[engine.ScoredPoint]:
        return self._under(
            view,
            lambda visible: self._engine.query(
                engine.QueryRequest(limit=limit, query=query, filter=visible, params=params)
            ),
        )

    def _ids(self, versions: Sequence[int | str | UUID]) -> list[str]:
        """The points' own ids. Payloads are read only for those that the engine's ids do not carry: reading 200 of them
        takes longer than the search (5 ms, warm)."""
        unknown = [version for version in versions if not carries_id(version)]
        with map_errors(self.folder.name):
            records = self._engine.retrieve(unknown, [ID], False)
        kept = {record.id: (record.payload or {})[ID] for record in records}
        return [carried_id(version) if carries_id(version) else kept[version] for version in versions]

    def _under(self, view: View, call: Callable[[engine.Filter | None], T]) -> T:
        """Run a call with the view's filter, and again if a write meanwhile stored what the filter took for absent."""
        with map_errors(self.folder.name):
            while True:
                extent = self._extent
                result = call(compile_view(view, self._slots, extent, self._share))
                if self._extent is extent:
                    return result

    def _share(self, wanted: engine.Filter) -> float:
        estimate = self._engine.count(engine.CountRequest(exact=False, filter=wanted))
        return estimate / max(1, self._engine.info().points_count)

    # --- reading

    def fetch(self, ids: Sequence[str], view: View) -> list[Point]:
        """The visible points among at most MAX_SLICE ids."""

        def scroll(visible: engine.Filter | None) -> list[engine.Record]:
            wanted = engine.Filter(must=[_under_ids(ids), *([visible] if visible else [])])
            return self._scroll(wanted, None, len(ids), [DENSE])[0]

        return [decode(record).point for record in self._under(view, scroll)]

    def scan(self, view: View | None, after: str | None, limit: int) -> tuple[list[StoredPoint], str | None]:
        offset = UUID(after) if after else None
        if view is None:
            with map_errors(self.folder.name):
                records, following = self._scroll(None, offset, limit, [DENSE])
        else:
            records, following = self._under(view, lambda visible: self._scroll(visible, offset, limit, [DENSE]))
        return [decode(record) for record in records], None if following is None else str(following)

    def count(self, view: View | None) -> int:
        if view is None:
            with map_errors(self.folder.name):
                return self._engine.count(engine.CountRequest(exact=True))
        return self._under(view, lambda visible: self._engine.count(engine.CountRequest(exact=True, filter=visible)))

    def _scroll(
        self, wanted: engine.Filter | None, offset: UUID | None, limit: int, vectors: Sequence[str]
    ) -> tuple[list[engine.Record], int | str | UUID | None]:
        request = engine.ScrollRequest(
            offset=offset, limit=limit, filter=wanted, with_payload=bool(vectors), with_vector=list(vectors)
        )
        return self._engine.scroll(request)

    # --- writing, at most MAX_SLICE points a call

    def put(self, points: Sequence[Point], commit: int) -> None:
        """Store checked points, and give their older live versions died = commit."""
        self._number_fields(points)
        terms = [sparse(self._bm25.document(point.text)) if point.text else None for point in points]
        encoded = [encode(p, t, commit, self._slots) for p, t in zip(points, terms, strict=True)]
        with map_errors(self.folder.name):
            self._extent = self._extent.with_born(commit, any(point.groups for point in points))
            self._engine.update(engine.UpdateOperation.upsert_points(encoded))
        self.stamp([point.id for point in points], commit, born_before=commit)

    def stamp(self, ids: Sequence[str], commit: int, born_before: int) -> None:
        """Give the live points under these ids, born before that commit, died = commit."""
        with map_errors(self.folder.name):
            found, _ = self._scroll(_live(ids, born_before), None, _PAGE, [])
            if found:
                self._extent = self._extent.with_died(commit)
                self._engine.update(engine.UpdateOperation.set_payload([r.id for r in found], {DIED: commit}))

    def patch(self, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int) -> None:
        """Copy the newest live version under each id with checked metadata merged in, and end the older one."""
        with map_errors(self.folder.name):
            found, _ = self._scroll(_live(ids, commit + 1), None, _PAGE, [DENSE, TEXT])
            newest = sorted(((decode(record), record) for record in found), key=lambda pair: pair[0].born)
            copies: dict[str, tuple[Point, engine.SparseVector | None]] = {}
            for stored, record in newest:
                point = replace(
                    stored.point,
                    metadata={**stored.point.metadata, **metadata},
                    groups=stored.point.groups if groups is None else groups,
                )
                copies[point.id] = (point, stored_terms(record))
            if copies:
                self._number_fields([point for point, _ in copies.values()])
                encoded = [encode(point, terms, commit, self._slots) for point, terms in copies.values()]
                self._extent = self._extent.with_born(commit, any(point.groups for point, _ in copies.values()))
                self._engine.update(engine.UpdateOperation.upsert_points(encoded))
        self.stamp(list(copies), commit, born_before=commit)

    def born_after(self, commit: int) -> list[UUID]:
        return self._page(engine.Filter(must=[engine.FieldCondition(BORN, range=engine.RangeFloat(gt=commit))]))

    def died_after(self, commit: int) -> list[UUID]:
        return self._page(engine.Filter(must=[engine.FieldCondition(DIED, range=engine.RangeFloat(gt=commit))]))

    def died_until(self, horizon: int) -> list[UUID]:
        return self._page(engine.Filter(must=[engine.FieldCondition(DIED, range=engine.RangeFloat(lte=horizon))]))

    def versions_of(self, ids: Sequence[str]) -> list[UUID]:
        return self._page(engine.Filter(must=[_under_ids(ids)]))

    def remove(self, versions: Sequence[UUID]) -> None:
        with map_errors(self.folder.name):
            self._engine.update(engine.UpdateOperation.delete_points(list(versions)))
        self.folder = replace(self.folder, removed=self.folder.removed + len(versions))

    def revive(self, versions: Sequence[UUID]) -> None:
        with map_errors(self.folder.name):
            self._engine.update(engine.UpdateOperation.delete_payload(list(versions), [DIED]))

    def note_removed(self) -> None:
        """Write down how many points were removed, and look up what the others need of a search."""
        with map_errors(self.folder.name):
            self.folder.save()
        self.measure()

    def is_mostly_removed(self, at_least: int) -> bool:
        """Whether more points were removed than are left: the engine keeps their space, and optimising, which gives it
        back, holds the interpreter for seconds to minutes."""
        return self.folder.removed >= max(at_least, self.count(None))

    def copy_some(self, other: "Shard", after: UUID | None) -> UUID | None:
        """Copy MAX_SLICE points as they are into another shard; returns where to go on, None at the end."""
        with map_errors(self.folder.name):
            records, following = self._scroll(None, after, MAX_SLICE, [DENSE, TEXT])
            copies = [engine.Point(r.id, r.vector, r.payload) for r in records if r.vector is not None]
            if copies:
                other._engine.update(engine.UpdateOperation.upsert_points(copies))
        return following if isinstance(following, UUID) else None

    def measure(self) -> None:
        """Look up what the shard holds: it says which conditions a search needs."""
        restricted = engine.Filter(must_not=[engine.FieldCondition(GROUPS, match=engine.MatchValue(PUBLIC))])
        with map_errors(self.folder.name):
            newest_born = self._extreme(BORN, engine.Direction.Desc) or 0
            oldest_died = self._extreme(DIED, engine.Direction.Asc)
            has_groups = bool(self._scroll(restricted, None, 1, [])[0])
        self._extent = Extent(newest_born, oldest_died, has_groups)

    def _extreme(self, field: str, direction: engine.Direction) -> int | None:
        """The largest (Desc) or smallest (Asc) value of an integer field; None where no point has it."""
        if not self.is_large:
            size = self._engine.info().points_count
            records, _ = self._engine.scroll(engine.ScrollRequest(limit=max(size, 1), with_payload=[field]))
            values = [int(record.payload[field]) for record in records if record.payload and field in record.payload]
            return (max if direction == engine.Direction.Desc else min)(values, default=None)
        order = engine.OrderBy(field, direction)
        found = self._engine.query(engine.QueryRequest(limit=1, query=order, with_payload=[field]))
        return int((found[0].payload or {})[field]) if found else None

    def _page(self, wanted: engine.Filter) -> list[UUID]:
        with map_errors(self.folder.name):
            found, _ = self._scroll(wanted, None, _PAGE, [])
            return [record.id for record in found if isinstance(record.id, UUID)]

    def _number_fields(self, points: Sequence[Point]) -> None:
        """Give numeric fields seen for the first time their numbers, on disk before any point uses them."""
        seen = {field: None for p in points for field, value in p.metadata.items() if type(value) is float}
        new = tuple(field for field in seen if field not in self._slots)
        if not new:
            return
        if len(self._slots) + len(new) > MAX_NUMERIC_FIELDS:
            raise InvalidPointError(
                f"namespace {self.folder.name!r} has {len(self._slots)} numeric metadata fields; with {new[0]!r} it "
                f"would exceed {MAX_NUMERIC_FIELDS}: use fewer names, or strings"
            )
        with map_errors(self.folder.name):
            self.folder = self.folder.with_numeric_fields(new)
        self._slots = {field: slot for slot, field in enumerate(self.folder.numeric_fields)}


def _under_ids(ids: Sequence[str]) -> engine.FieldCondition:
    return engine.FieldCondition(ID, match=engine.MatchAny(list(ids)))


def _live(ids: Sequence[str], born_before: int) -> engine.Filter:
    ended = engine.FieldCondition(DIED, range=engine.RangeFloat(gte=0))
    later = engine.FieldCondition(BORN, range=engine.RangeFloat(gte=born_before))
    return engine.Filter(must=[_under_ids(ids)], must_not=[ended, later])
