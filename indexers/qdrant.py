"""The dense leg on a Qdrant cluster: one Qdrant collection a collection, a namespace a partition of it by payload.

Nothing is remembered between calls but which payload fields are indexed, so that any number of processes may read;
a namespace has one writer at a time, by its lease in the catalog.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from qdrant_client import AsyncQdrantClient, models

from indexers.base import Float32, Hit, Metadata, Namespace, NamespaceNotFoundError, Point, StoredPoint, View
from indexers.bounded import each, slices
from indexers.point import check_groups, checked_metadata, checked_points, checked_vector
from indexers.qdrant_calls import Calls
from indexers.qdrant_collection import QdrantCollections, QdrantOptions
from indexers.qdrant_filter import (
    BORN,
    DIED,
    ID,
    any_of,
    later_than,
    live,
    not_later_than,
    number_field,
    visible,
    within,
)
from indexers.qdrant_partition import PAGE, Partition, shard_key
from indexers.qdrant_point import decode, encode
from indexers.retry import Retries
from indexers.ties import search_ranked

MAX_BATCH = 256  # points of one upsert
MAX_INDEXED_NUMBERS = 100  # numeric fields of a collection with an index; ranges over others are read from payloads
_log = logging.getLogger(__name__)


class QdrantIndex:
    """Implements indexers.base.DenseIndex. `collections` exchanges what stands behind a collection."""

    def __init__(
        self, client: AsyncQdrantClient, options: QdrantOptions, calls: Calls, collections: QdrantCollections
    ) -> None:
        self._client = client
        self._options = options
        self._calls = calls
        self.collections = collections
        self._indexed: dict[str, set[str]] = {}  # numeric payload fields, by collection
        self._indexing = asyncio.Lock()

    @classmethod
    def on(
        cls, client: AsyncQdrantClient, options: QdrantOptions | None = None, retries: Retries | None = None
    ) -> "QdrantIndex":
        """The index on a client's server; closing it closes the client."""
        options, calls = options or QdrantOptions(), Calls(retries or Retries())
        return cls(client, options, calls, QdrantCollections(client, calls, options))

    def at_version(self, version: int) -> "QdrantIndex":
        """The same index, reading and writing one version of its collections, whether readers see it or not."""
        collections = QdrantCollections(self._client, self._calls, self._options, version)
        return QdrantIndex(self._client, self._options, self._calls, collections)

    # --- searches

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        query = checked_vector(namespace.collection, vector)
        sign = -1.0 if namespace.collection.metric == "euclidean" else 1.0
        partition, wanted, params = self._partition(namespace), visible(namespace.name, view), self._params(exact)

        async def search(limit: int) -> list[Hit]:
            found = await partition.nearest(query, wanted, limit, params)
            return [Hit((point.payload or {})[ID], sign * point.score) for point in found]

        hits = await search_ranked(search, top_k)
        if not hits:
            await partition.require()
        return hits

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        checked = await asyncio.to_thread(checked_points, namespace.collection, points)
        partition = await self._writable(namespace)
        await self._index_numbers(namespace, checked)

        async def put_some(some: Sequence[Point]) -> None:
            await partition.upsert([encode(namespace.name, point, commit) for point in some])
            await partition.end(live(namespace.name, [point.id for point in some], commit - 1), commit)

        await each(put_some, list(slices(checked, MAX_BATCH)), self._options.at_once)

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        partition = await self._writable(namespace)
        for some in slices(ids, PAGE):
            await partition.end(live(namespace.name, some, commit), commit)

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        changes = checked_metadata(metadata)
        check_groups(groups or ())
        partition = await self._writable(namespace)
        for some in slices(ids, MAX_BATCH):
            newest = await _newest(partition, live(namespace.name, some, commit))
            copies = [
                replace(
                    point,
                    metadata={**point.metadata, **changes},
                    groups=point.groups if groups is None else tuple(dict.fromkeys(groups)),
                )
                for point in newest
            ]
            if copies:
                await self._index_numbers(namespace, copies)
                await partition.upsert([encode(namespace.name, copy, commit) for copy in copies])
                await partition.end(live(namespace.name, [copy.id for copy in copies], commit - 1), commit)

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        partition = self._partition(namespace)

        async def fetch_some(some: Sequence[str]) -> list[models.Record]:
            records, _ = await partition.records(visible(namespace.name, view, any_of(ID, some)), None, len(some))
            return records

        distinct = list(dict.fromkeys(ids))
        pages = await each(fetch_some, list(slices(distinct, MAX_BATCH)), self._options.at_once)
        if not any(pages):
            await partition.require()
        points = [decode(record).point for page in pages for record in page]
        return {point.id: point for point in points}

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        partition = self._partition(namespace)
        records, following = await partition.records(_wanted(namespace, view), after, limit)
        if not records:
            await partition.require()
        return [decode(record) for record in records], following

    async def undo(self, namespace: Namespace, commit: int) -> None:
        partition = await self._writable(namespace)
        await partition.each(partition.remove, later_than(BORN, commit))
        await partition.each(partition.revive, later_than(DIED, commit))

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        partition = await self._writable(namespace)
        return await partition.each(partition.remove, not_later_than(DIED, horizon))

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        partition = await self._writable(namespace)
        for some in slices(ids, PAGE):
            await partition.each(partition.remove, any_of(ID, some))

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        await self.collections.ensure(namespace.collection)
        if self._options.sharding == "custom":
            await self.collections.add_shards(namespace.collection.name, shard_key(namespace.name))
        await self._partition(namespace).mark()

    async def drop(self, namespace: Namespace) -> None:
        """What says that there is the namespace goes last: a drop that was interrupted can be repeated."""
        partition = self._partition(namespace)
        try:
            await partition.require()
        except NamespaceNotFoundError:
            return
        await partition.each(partition.remove)
        await partition.unmark()
        if self._options.sharding == "custom":
            await self.collections.remove_shards(namespace.collection.name, shard_key(namespace.name))

    async def list(self, collection: str) -> list[str]:
        return await self.collections.namespaces(collection)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        partition = self._partition(namespace)
        found = await partition.count(_wanted(namespace, view))
        if not found:
            await partition.require()
        return found

    async def flush(self, namespace: Namespace) -> None:
        """Every write was acknowledged when it was applied, and the server's log of writes outlives its process."""
        await self._partition(namespace).require()

    async def close(self) -> None:
        self._calls.close()
        await self._client.close()

    # --- inside

    def _partition(self, namespace: Namespace) -> Partition:
        shards = shard_key(namespace.name) if self._options.sharding == "custom" else None
        name = self.collections.target(namespace.collection.name)
        return Partition(self._client, self._calls, name, namespace, shards=shards)

    async def _writable(self, namespace: Namespace) -> Partition:
        partition = self._partition(namespace)
        await partition.require()
        return partition

    def _params(self, exact: bool) -> models.SearchParams:
        if exact:
            return models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
        rescoring = models.QuantizationSearchParams(rescore=True, oversampling=self._options.chosen_oversampling)
        is_quantized = self._options.quantization != "none"
        return models.SearchParams(hnsw_ef=self._options.search_width, quantization=rescoring if is_quantized else None)

    async def _index_numbers(self, namespace: Namespace, points: Sequence[Point]) -> None:
        """Let the numeric fields seen for the first time be indexed, before points use them."""
        name = self.collections.target(namespace.collection.name)
        seen = {field: None for p in points for field, value in p.metadata.items() if type(value) is float}
        async with self._indexing:
            if seen and name not in self._indexed:
                self._indexed[name] = await self.collections.indexed(name)
            for field in map(number_field, seen):
                if field in self._indexed[name]:
                    continue
                if len(self._indexed[name]) >= MAX_INDEXED_NUMBERS:
                    _log.warning(
                        "ranges over further numeric fields of %r are slow: %d have an index", name, MAX_INDEXED_NUMBERS
                    )
                    return
                await self.collections.index(name, field)
                self._indexed[name].add(field)


def _wanted(namespace: Namespace, view: View | None) -> models.Filter:
    return models.Filter(must=[within(namespace.name)]) if view is None else visible(namespace.name, view)


async def _newest(partition: Partition, wanted: models.Filter) -> list[Point]:
    """The newest of the versions of each point that meet a filter; there are two at most."""
    records, _ = await partition.records(wanted, None, 2 * MAX_BATCH)
    found = sorted(map(decode, records), key=lambda stored: stored.born)
    return [*{stored.point.id: stored.point for stored in found}.values()]
