"""An exact index in memory, for tests and for small throw-away collections: what every other index must agree with.

Dense scores are numpy's, BM25 is summed term by term, filters are `filter.matches`. Nothing is durable.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from indexers.base import (
    CollectionSpec,
    Float32,
    Hit,
    IndexUnavailableError,
    Metadata,
    Namespace,
    NamespaceNotFoundError,
    Point,
    StoredPoint,
    View,
)
from indexers.bm25 import Bm25, Terms, idf
from indexers.filter import matches
from indexers.point import check_groups, checked_metadata, checked_points, checked_vector


@dataclass(slots=True)
class _Version:
    """One version of a point; its text is kept as terms only, as every index keeps it."""

    point: Point
    terms: Terms
    born: int
    died: int | None = None

    def is_visible(self, view: View) -> bool:
        point = self.point
        return (
            self.born <= view.snapshot
            and not (self.died is not None and self.died <= view.snapshot)
            and (view.groups is None or not point.groups or not view.groups.isdisjoint(point.groups))
            and matches(view.filter, point.metadata)
        )


@dataclass(slots=True)
class _Partition:
    """A namespace: the versions of its points by id and commit."""

    spec: CollectionSpec
    bm25: Bm25
    versions: dict[tuple[str, int], _Version] = field(default_factory=dict)

    def live(self, ids: Sequence[str], until: int) -> Iterator[_Version]:
        """Versions under these ids that have not died and were born at or before `until`."""
        wanted = set(ids)
        for (point_id, born), version in self.versions.items():
            if point_id in wanted and born <= until and version.died is None:
                yield version

    def visible(self, view: View) -> list[_Version]:
        return [version for version in self.versions.values() if version.is_visible(view)]

    def document_frequency(self, term: int) -> tuple[int, int]:
        """How many stored texts there are, and how many hold the term; dead versions count until they are swept."""
        texts = [version.terms.ids for version in self.versions.values() if len(version.terms)]
        return len(texts), sum(term in ids for ids in texts)


class MemoryIndex:
    """Implements indexers.base.Index without an engine."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, str], _Partition] = {}
        self._is_closed = False

    # --- searches

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        partition = self._partition(namespace)
        query = checked_vector(partition.spec, vector)
        found = partition.visible(view)
        if not found:
            return []
        matrix = np.stack([version.point.vector for version in found])
        return _ranked(found, _scores(partition.spec, matrix, query), top_k)

    async def search_text(self, namespace: Namespace, query: str, view: View, top_k: int) -> list[Hit]:
        partition = self._partition(namespace)
        question = partition.bm25.question(query)
        weight_of = {
            int(term): float(count) * idf(*partition.document_frequency(int(term)))
            for term, count in zip(question.ids, question.weights, strict=True)
        }
        found = [v for v in partition.visible(view) if not weight_of.keys().isdisjoint(v.terms.ids.tolist())]
        scores = [
            sum(weight_of.get(int(t), 0.0) * float(w) for t, w in zip(v.terms.ids, v.terms.weights, strict=True))
            for v in found
        ]
        return _ranked(found, np.array(scores, np.float32), top_k)

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        partition = self._partition(namespace)
        checked = checked_points(partition.spec, points)
        self._stamp(partition, [point.id for point in checked], commit, before=commit - 1)
        for point in checked:
            terms = partition.bm25.document(point.text or "")
            stored = replace(point, text=None, vector=point.vector.copy())
            partition.versions[point.id, commit] = _Version(stored, terms, commit)

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        self._stamp(self._partition(namespace), ids, commit, before=commit)

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        partition = self._partition(namespace)
        changes = checked_metadata(metadata)
        check_groups(groups or ())
        newest = {v.point.id: v for v in sorted(partition.live(ids, commit), key=lambda v: v.born)}
        for point_id, version in newest.items():
            point = replace(
                version.point,
                metadata={**version.point.metadata, **changes},
                groups=version.point.groups if groups is None else tuple(dict.fromkeys(groups)),
            )
            partition.versions[point_id, commit] = _Version(point, version.terms, commit)
        self._stamp(partition, ids, commit, before=commit - 1)

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        wanted = set(ids)
        found = self._partition(namespace).visible(view)
        return {version.point.id: version.point for version in found if version.point.id in wanted}

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        partition = self._partition(namespace)
        found = list(partition.versions.values()) if view is None else partition.visible(view)
        found.sort(key=lambda version: (version.point.id, version.born))
        if after is not None:
            found = [v for v in found if [v.point.id, v.born] > json.loads(after)]
        page = [StoredPoint(v.point, v.born, v.died) for v in found[:limit]]
        return page, json.dumps([page[-1].point.id, page[-1].born]) if len(found) > limit else None

    async def undo(self, namespace: Namespace, commit: int) -> None:
        partition = self._partition(namespace)
        partition.versions = {key: v for key, v in partition.versions.items() if v.born <= commit}
        for version in partition.versions.values():
            if version.died is not None and version.died > commit:
                version.died = None

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        partition = self._partition(namespace)
        kept = {k: v for k, v in partition.versions.items() if v.died is None or v.died > horizon}
        removed = len(partition.versions) - len(kept)
        partition.versions = kept
        return removed

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        partition, unwanted = self._partition(namespace), set(ids)
        partition.versions = {key: v for key, v in partition.versions.items() if key[0] not in unwanted}

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        self._check_open()
        key = (namespace.collection.name, namespace.name)
        if key not in self._partitions:
            self._partitions[key] = _Partition(namespace.collection, Bm25(namespace.collection.language))

    async def drop(self, namespace: Namespace) -> None:
        self._check_open()
        self._partitions.pop((namespace.collection.name, namespace.name), None)

    async def list(self, collection: str) -> list[str]:
        self._check_open()
        return sorted(name for owner, name in self._partitions if owner == collection)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        partition = self._partition(namespace)
        return len(partition.versions) if view is None else len(partition.visible(view))

    async def flush(self, namespace: Namespace) -> None:
        self._partition(namespace)

    async def close(self) -> None:
        self._is_closed = True

    # --- inside

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    def _partition(self, namespace: Namespace) -> _Partition:
        self._check_open()
        try:
            return self._partitions[namespace.collection.name, namespace.name]
        except KeyError:
            raise NamespaceNotFoundError(f"no namespace {str(namespace)!r} in the index; create it first") from None

    def _stamp(self, partition: _Partition, ids: Sequence[str], commit: int, before: int) -> None:
        for version in partition.live(ids, before):
            version.died = commit


def _scores(spec: CollectionSpec, matrix: Float32, query: Float32) -> Float32:
    """Scores (n,) of vectors (n, dimension): higher is nearer. A zero vector's cosine is 0."""
    if spec.metric == "euclidean":
        return np.asarray(-np.linalg.norm(matrix - query, axis=1), np.float32)
    scores = matrix @ query
    if spec.metric == "cosine":
        norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
        scores = scores / np.where(norms == 0, 1, norms)
    return np.asarray(scores, np.float32)


def _ranked(found: Sequence[_Version], scores: Float32, top_k: int) -> list[Hit]:
    hits = [Hit(v.point.id, float(score)) for v, score in zip(found, scores, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:top_k]
