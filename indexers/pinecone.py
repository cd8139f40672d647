"""The dense leg on a Pinecone index, over its data plane: never contacted unless the settings name it.

One index holds the namespaces of all collections of its dimension and metric. It is made by whoever pays for it, and
not by refdesk.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from indexers.base import (
    DimensionMismatchError,
    Float32,
    Hit,
    IndexerError,
    Metadata,
    Namespace,
    Point,
    StoredPoint,
    View,
)
from indexers.bounded import each, slices
from indexers.pinecone_http import PineconeHttp
from indexers.pinecone_record import (
    BORN,
    NEVER,
    carried_id,
    collection_prefix,
    decode,
    died_within,
    encode,
    later_than,
    live,
    local_name,
    under_ids,
    visible,
)
from indexers.pinecone_space import PAGE, Record, Space, Written, batches
from indexers.point import check_groups, checked_metadata, checked_points, checked_vector
from indexers.retry import Retries
from indexers.ties import search_ranked

_MOST_IDS = 1000  # of one filter
_MOST_CHARS = 512  # of a namespace's name at Pinecone's
_AT_ONCE = 4  # requests of one call under way


class PineconeIndex:
    """Implements indexers.base.DenseIndex. What is changed by a filter is changed by Pinecone, in one request."""

    def __init__(self, http: PineconeHttp) -> None:
        self._http = http
        self._written = Written()

    @classmethod
    def at(cls, url: str, api_key: str, *, timeout_s: float = 30.0, retries: Retries | None = None) -> "PineconeIndex":
        """The index whose host is `url`; nothing is sent yet."""
        return cls(PineconeHttp(url, api_key, timeout_s=timeout_s, retries=retries or Retries()))

    # --- searches

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        """`exact` changes nothing: Pinecone has one way of searching."""
        query = checked_vector(namespace.collection, vector)
        space, wanted = self._space(namespace), visible(view)
        is_euclidean = namespace.collection.metric == "euclidean"

        async def search(limit: int) -> list[Hit]:
            found = await space.nearest(query, wanted, limit, with_values=is_euclidean)
            ids = await _own_ids(space, found)
            # whether Pinecone's euclidean score is the distance or its square is not said: it is computed here
            scores = [_distance(query, one) if is_euclidean else float(one["score"]) for one in found]
            return [Hit(id_, score) for id_, score in zip(ids, scores, strict=True)]

        await space.settle()
        hits = await search_ranked(search, top_k)
        if not hits:
            await space.require()
        return hits

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        checked = checked_points(namespace.collection, points)
        records = [encode(point, commit) for point in checked]
        space = await self._settled(namespace)
        await each(space.upsert, list(batches(records)), _AT_ONCE)
        await self._end(space, [point.id for point in checked], commit, born_until=commit - 1)

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        await self._end(await self._settled(namespace), ids, commit, born_until=commit)

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        changes = checked_metadata(metadata)
        check_groups(groups or ())
        space = await self._settled(namespace)
        for some in slices(ids, PAGE // 2):
            found, _ = await space.records(live(some, commit), None, PAGE)  # two versions of an id at most
            newest = {s.point.id: s.point for s in sorted(map(decode, found), key=lambda stored: stored.born)}
            copies = [
                replace(
                    point,
                    metadata={**point.metadata, **changes},
                    groups=point.groups if groups is None else tuple(dict.fromkeys(groups)),
                )
                for point in newest.values()
            ]
            await each(space.upsert, list(batches([encode(copy, commit) for copy in copies])), _AT_ONCE)
            await self._end(space, list(newest), commit, born_until=commit - 1)

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        space = self._space(namespace)
        await space.settle()

        async def fetch_some(some: Sequence[str]) -> list[Record]:
            found, _ = await space.records(visible(view, under_ids(some)), None, PAGE)
            return found

        pages = await each(fetch_some, list(slices(list(dict.fromkeys(ids)), PAGE)), _AT_ONCE)
        if not any(pages):
            await space.require()
        points = [decode(record).point for page in pages for record in page]
        return {point.id: point for point in points}

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        space, found = self._space(namespace), list[Record]()
        await space.settle()
        while len(found) < limit:
            page, after = await space.records(visible(view), after, min(PAGE, limit - len(found)))
            found += page
            if after is None:
                break
        if not found:
            await space.require()
        return [decode(record) for record in found], after

    async def undo(self, namespace: Namespace, commit: int) -> None:
        space = await self._settled(namespace)
        await space.until_none(space.remove_all, later_than(BORN, commit))
        await space.until_none(space.revive_all, died_within(commit, NEVER - 1))

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        space = await self._settled(namespace)
        return await space.until_none(space.remove_all, died_within(-1, horizon))

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        space = await self._settled(namespace)
        for some in slices(ids, _MOST_IDS):
            await space.until_none(space.remove_all, under_ids(some))

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        """Raises DimensionMismatchError if the index has another dimension or metric."""
        spec = namespace.collection
        stats = (await self._http.post("/describe_index_stats", {})).content
        dimension, metric = stats.get("dimension"), stats.get("metric") or spec.metric
        if (dimension, metric) != (spec.dimension, spec.metric):
            raise DimensionMismatchError(
                f"the Pinecone index holds {dimension} dimensions under {metric!r}, and collection {spec.name!r} "
                f"{spec.dimension} under {spec.metric!r}; name another index in pinecone_url"
            )
        await self._space(namespace).make()

    async def drop(self, namespace: Namespace) -> None:
        await self._space(namespace).drop()

    async def list(self, collection: str) -> list[str]:
        prefix, found = collection_prefix(collection), []
        parameters: dict[str, str | int] = {"prefix": prefix, "limit": PAGE}
        while True:
            content = (await self._http.get("/namespaces", **parameters)).content
            found += [one["name"] for one in content.get("namespaces", []) if one["name"].startswith(prefix)]
            following = (content.get("pagination") or {}).get("next")
            if not following:
                return sorted(map(local_name, found))
            parameters["paginationToken"] = following

    async def count(self, namespace: Namespace, view: View | None) -> int:
        space = self._space(namespace)
        await space.settle()
        found = await space.count(visible(view))
        if not found:
            await space.require()
        return found

    async def flush(self, namespace: Namespace) -> None:
        """Wait until everything written is seen; Pinecone keeps it from the moment it takes it."""
        await self._settled(namespace)

    async def close(self) -> None:
        await self._http.close()

    # --- inside

    def _space(self, namespace: Namespace) -> Space:
        space = Space(self._http, namespace, self._written)
        if len(space.name) > _MOST_CHARS:
            raise IndexerError(f"namespace {namespace.name[:40]!r}… is too long for Pinecone; choose a shorter name")
        return space

    async def _settled(self, namespace: Namespace) -> Space:
        space = self._space(namespace)
        await space.require()
        await space.settle()
        return space

    async def _end(self, space: Space, ids: Sequence[str], commit: int, *, born_until: int) -> None:
        for some in slices(ids, _MOST_IDS):
            await space.end_all(live(some, born_until), commit)


async def _own_ids(space: Space, found: Sequence[Record]) -> list[str]:
    """The points' own ids; those that Pinecone's do not say are looked up."""
    carried = {str(one["id"]): carried_id(one["id"]) for one in found}
    unknown = [record for record, id_ in carried.items() if id_ is None]
    for some in slices(unknown, PAGE):
        records = await space.by_ids(some)
        carried |= {record: decode(records[record]).point.id for record in some}
    return [carried[one["id"]] or "" for one in found]


def _distance(query: Float32, record: Record) -> float:
    return -float(np.linalg.norm(np.array(record["values"], np.float32) - query))
