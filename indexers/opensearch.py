"""The text leg of the gpu profile: BM25 on an OpenSearch cluster (opensearch-py 3), an index or a share of one a
namespace.

OpenSearch shows a write to searches after a refresh only. A flush refreshes, and whatever must see what this process
wrote since then refreshes first: a search at a commit sees all of it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from indexers.base import Hit, Metadata, Namespace, NamespaceNotFoundError, Point, StoredPoint, View
from indexers.bounded import slices
from indexers.opensearch_client import Access, Client
from indexers.opensearch_fields import NumericFields
from indexers.opensearch_places import Layout, Places
from indexers.opensearch_schema import Analyser, Analysis
from indexers.opensearch_space import MAX_SLICE, Space
from indexers.point import check_groups, checked_metadata, checked_points

T = TypeVar("T")


class OpenSearchIndex:
    """Implements indexers.base.TextIndex. What it gives back has neither text nor vector: the dense leg has that."""

    def __init__(self, client: Client, layout: Layout, analysis: Analysis) -> None:
        self._client = client
        self._over_shards = layout.shards > 1
        self._analysis = analysis
        self._places = Places(client, layout)
        self._fields = NumericFields(client)
        self._spaces: dict[Namespace, Space] = {}

    @classmethod
    def connect(cls, access: Access, layout: Layout | None = None, analysis: Analysis = "refdesk") -> "OpenSearchIndex":
        """An index on a cluster, which is asked for nothing yet. `analysis`: who cuts the texts of new namespaces."""
        return cls(Client(access), layout or Layout(), analysis)

    # --- searches

    async def search_text(self, namespace: Namespace, query: str, view: View, top_k: int) -> list[Hit]:
        return await self._in(namespace, lambda s: s.search(query, view, top_k, over_shards=self._over_shards))

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        checked = checked_points(namespace.collection, points)
        await self._in(namespace, lambda s: _each(checked, lambda some: s.put(some, commit)))

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        await self._in(namespace, lambda s: _each(ids, lambda some: s.stamp(some, commit, commit + 1)))

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        changes = checked_metadata(metadata)
        check_groups(groups or ())
        distinct = None if groups is None else tuple(dict.fromkeys(groups))
        await self._in(namespace, lambda s: _each(ids, lambda some: s.patch(some, changes, distinct, commit)))

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        found: dict[str, Point] = {}

        async def fetch_some(space: Space) -> None:
            for some in slices(ids, MAX_SLICE):
                found.update({point.id: point for point in await space.fetch(some, view)})

        await self._in(namespace, fetch_some)
        return found

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        return await self._in(namespace, lambda s: s.scan(view, after, limit))

    async def undo(self, namespace: Namespace, commit: int) -> None:
        await self._in(namespace, lambda s: s.undo(commit))

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        return await self._in(namespace, lambda s: s.sweep(horizon))

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        await self._in(namespace, lambda s: _each(ids, s.purge))

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        place = await self._places.create(namespace, Analyser.of(namespace.collection, self._analysis))
        space = self._spaces.get(namespace)
        if space is not None and space.place != place:
            del self._spaces[namespace]
        self._fields.forget(place.alias)

    async def drop(self, namespace: Namespace) -> None:
        try:
            space = await self._space(namespace)
        except NamespaceNotFoundError:
            return
        if space.place.routing is not None:
            await space.clear()
        else:
            self._fields.forget(space.place.alias)
        await self._places.drop(namespace)
        self._forget(namespace)

    async def list(self, collection: str) -> list[str]:
        return await self._places.names(collection)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        return await self._in(namespace, lambda s: s.count(view))

    async def flush(self, namespace: Namespace) -> None:
        """Let every search see what was written. It was durable when it was acknowledged."""
        await self._in(namespace, lambda s: s.refresh())

    async def close(self) -> None:
        await self._client.close()

    # --- inside

    async def _in(self, namespace: Namespace, call: Callable[[Space], Awaitable[T]]) -> T:
        """Call a namespace's space; once more, looked up anew, if its index has gone: another process may have dropped
        and made it again."""
        was_known = namespace in self._spaces
        space = await self._space(namespace)
        try:
            return await call(space)
        except NamespaceNotFoundError:
            self._forget(namespace)
            if not was_known:
                raise
        return await call(await self._space(namespace))

    async def _space(self, namespace: Namespace) -> Space:
        if namespace not in self._spaces:
            place = await self._places.find(namespace)
            # another call may have been faster, and its space knows what it wrote
            self._spaces.setdefault(namespace, Space(self._client, self._fields, place))
        return self._spaces[namespace]

    def _forget(self, namespace: Namespace) -> None:
        self._spaces.pop(namespace, None)
        self._places.forget(namespace)


async def _each(items: Sequence[T], change: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    for some in slices(items, MAX_SLICE):
        await change(some)
