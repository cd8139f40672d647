"""A namespace on a Qdrant server: what is asked of it and written to it, a request a method.

Every write waits until all replicas that are up have applied it: a commit is whole before it becomes visible.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from qdrant_client import AsyncQdrantClient, models

from indexers.base import Float32, Namespace, NamespaceNotFoundError
from indexers.keywords import keyword
from indexers.qdrant_calls import Calls, CollectionMissingError
from indexers.qdrant_filter import DIED, ID, Condition, within
from indexers.qdrant_point import DENSE, marker, marker_id

T = TypeVar("T")
PAGE = 1000  # ids of one scroll

Ids = Sequence[models.ExtendedPointId]


def shard_key(namespace: str) -> str:
    """The name of a namespace's own shards, where sharding is custom."""
    return keyword(namespace)


class Partition:
    """`collection` is the name that requests use; `shards` the key of the namespace's own shards, if it has them."""

    def __init__(
        self, client: AsyncQdrantClient, calls: Calls, collection: str, namespace: Namespace, *, shards: str | None
    ) -> None:
        self._client = client
        self._calls = calls
        self._collection = collection
        self._namespace = namespace
        self._shards = shards

    # --- whether it is there

    async def require(self) -> None:
        """Raises NamespaceNotFoundError."""
        ids = [marker_id(self._namespace.name)]
        found = await self._ask(
            lambda: self._client.retrieve(self._collection, ids, with_payload=False, shard_key_selector=self._shards)
        )
        if not found:
            raise self._missing()

    async def mark(self) -> None:
        await self.upsert([marker(self._namespace)])

    async def unmark(self) -> None:
        await self.remove([marker_id(self._namespace.name)])

    # --- reading

    async def nearest(
        self, vector: Float32, wanted: models.Filter, limit: int, params: models.SearchParams
    ) -> list[models.ScoredPoint]:
        """The nearest points with their ids, best first."""
        query = vector.tolist()
        found = await self._ask(
            lambda: self._client.query_points(
                self._collection,
                query,
                using=DENSE,
                query_filter=wanted,
                limit=limit,
                search_params=params,
                with_payload=[ID],
                shard_key_selector=self._shards,
            ),
            is_search=True,
        )
        return found.points

    async def records(
        self, wanted: models.Filter, after: str | None, limit: int
    ) -> tuple[list[models.Record], str | None]:
        """A page of whole points in the order of the server's ids, and where the next begins."""
        found, following = await self._scroll(wanted, after, limit, is_whole=True)
        return found, None if following is None else str(following)

    async def count(self, wanted: models.Filter) -> int:
        found = await self._ask(
            lambda: self._client.count(
                self._collection, count_filter=wanted, exact=True, shard_key_selector=self._shards
            )
        )
        return found.count

    # --- writing

    async def upsert(self, points: Sequence[models.PointStruct]) -> None:
        await self._ask(
            lambda: self._client.upsert(self._collection, list(points), wait=True, shard_key_selector=self._shards)
        )

    async def end(self, wanted: models.Filter, commit: int) -> None:
        """Give points died = commit."""
        await self._ask(
            lambda: self._client.set_payload(
                self._collection, {DIED: commit}, points=wanted, wait=True, shard_key_selector=self._shards
            )
        )

    async def revive(self, ids: Ids) -> None:
        await self._ask(
            lambda: self._client.delete_payload(
                self._collection, [DIED], points=list(ids), wait=True, shard_key_selector=self._shards
            )
        )

    async def remove(self, ids: Ids) -> None:
        await self._ask(
            lambda: self._client.delete(
                self._collection, points_selector=list(ids), wait=True, shard_key_selector=self._shards
            )
        )

    async def each(self, change: Callable[[Ids], Awaitable[None]], *conditions: Condition) -> int:
        """Change the points that meet the conditions, a page at a time until none does; returns how many did."""
        wanted = models.Filter(must=[within(self._namespace.name), *conditions])
        changed = 0
        while True:
            found, _ = await self._scroll(wanted, None, PAGE, is_whole=False)
            if not found:
                return changed
            await change([record.id for record in found])
            changed += len(found)

    # --- inside

    async def _scroll(
        self, wanted: models.Filter, after: str | None, limit: int, *, is_whole: bool
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        return await self._ask(
            lambda: self._client.scroll(
                self._collection,
                scroll_filter=wanted,
                limit=limit,
                offset=after,
                with_payload=is_whole,
                with_vectors=[DENSE] if is_whole else False,
                shard_key_selector=self._shards,
            )
        )

    async def _ask(self, request: Callable[[], Awaitable[T]], *, is_search: bool = False) -> T:
        try:
            return await self._calls.run(request, is_search=is_search)
        except CollectionMissingError as exc:
            raise self._missing() from exc

    def _missing(self) -> NamespaceNotFoundError:
        return NamespaceNotFoundError(f"no namespace {str(self._namespace)!r} in Qdrant; create it first")
