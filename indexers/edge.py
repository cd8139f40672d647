"""The index of the embedded profile: Qdrant's engine in this process, a shard a namespace (qdrant-edge-py 0.9).

The engine holds the interpreter during a call, so more threads bring no more queries a second; they keep the event
loop out of it, and let a search in between two slices of a write.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from indexers.base import Float32, GiveWay, Hit, Metadata, Namespace, Point, StoredPoint, View, at_once
from indexers.bounded import slices
from indexers.edge_shard import MAX_SLICE
from indexers.edge_shards import OpenShards, ShardLimits
from indexers.point import check_groups, checked_metadata, checked_points

T = TypeVar("T")
_SCAN_SLICE = 256  # points read by one call: about 10 ms
_PUT_SLICE = 24  # points stored by one: 3 ms, with their terms


class EdgeIndex:
    """Implements indexers.base.Index. One process may own `root`; who takes the lock is the caller's business."""

    def __init__(self, root: Path, limits: ShardLimits, compact_from: int, give_way: GiveWay) -> None:
        self._searches = ThreadPoolExecutor(2, thread_name_prefix="edge-search")  # one for each leg
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="edge-write")
        self._shards = OpenShards(root, limits, self._writes)
        self._write, self._give_way = self._shards.run, give_way
        self._large_from, self._compact_from = limits.large_from, compact_from

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        max_open_shards: int = 64,
        compact_from: int = 10_000,
        large_from: int = 500,
        give_way: GiveWay = at_once,
    ) -> "EdgeIndex":
        """Open the index under a folder, which is made if need be; shards are opened when they are used. A sweep after
        which more points were removed than are left, and at least `compact_from`, copies these into a new shard; so
        does a write after which a small shard holds `large_from` points. `give_way` is awaited before each slice of a
        write, and before a flush."""
        return cls(root, ShardLimits(max_open_shards, large_from), compact_from, give_way)

    @property
    def open_shards(self) -> int:
        """How many shards are open now."""
        return self._shards.open_count

    # --- searches

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        async with self._shards.use(namespace) as shard:
            return await self._search(shard.search_dense, vector, view, top_k, exact)

    async def search_text(self, namespace: Namespace, query: str, view: View, top_k: int) -> list[Hit]:
        async with self._shards.use(namespace) as shard:
            return await self._search(shard.search_text, query, view, top_k)

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        async with self._shards.write(namespace) as shard:
            for some in slices(await self._in_turn(checked_points, shard.spec, points), _PUT_SLICE):
                await self._in_turn(shard.put, some, commit)
            is_outgrown = not shard.is_large and await self._write(shard.count, None) >= self._large_from
        if is_outgrown:
            await self._shards.copy(namespace)

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        async with self._shards.write(namespace) as shard:
            for some in slices(ids, MAX_SLICE):
                await self._in_turn(shard.stamp, some, commit, commit + 1)

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        changes = checked_metadata(metadata)
        check_groups(groups or ())
        distinct = None if groups is None else tuple(dict.fromkeys(groups))
        async with self._shards.write(namespace) as shard:
            for some in slices(ids, MAX_SLICE):
                await self._in_turn(shard.patch, some, changes, distinct, commit)

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        found: dict[str, Point] = {}
        async with self._shards.use(namespace) as shard:
            for some in slices(ids, MAX_SLICE):
                found |= {point.id: point for point in await self._search(shard.fetch, some, view)}
        return found

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        found: list[StoredPoint] = []
        async with self._shards.use(namespace) as shard:
            while len(found) < limit:
                page, after = await self._search(shard.scan, view, after, min(_SCAN_SLICE, limit - len(found)))
                found += page
                if after is None:
                    break
        return found, after

    async def undo(self, namespace: Namespace, commit: int) -> None:
        async with self._shards.write(namespace) as shard:
            await self._each(partial(shard.born_after, commit), shard.remove)
            await self._each(partial(shard.died_after, commit), shard.revive)
            await self._write(shard.note_removed)

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        async with self._shards.write(namespace) as shard:
            removed = await self._each(partial(shard.died_until, horizon), shard.remove)
            await self._write(shard.note_removed)
            is_due = await self._write(shard.is_mostly_removed, self._compact_from)
        if is_due:
            await self._shards.copy(namespace)
        return removed

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        async with self._shards.write(namespace) as shard:
            for some in slices(ids, MAX_SLICE):
                await self._each(partial(shard.versions_of, some), shard.remove)
            await self._write(shard.note_removed)

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        await self._shards.create(namespace)

    async def drop(self, namespace: Namespace) -> None:
        await self._shards.drop(namespace)

    async def list(self, collection: str) -> list[str]:
        return await self._shards.names(collection)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        async with self._shards.use(namespace) as shard:
            return await self._search(shard.count, view)

    async def flush(self, namespace: Namespace) -> None:
        async with self._shards.write(namespace) as shard:
            await self._in_turn(shard.flush)

    async def close(self) -> None:
        """Wait for the calls under way, make everything durable and let go of the files."""
        await self._shards.close()
        self._searches.shutdown()
        self._writes.shutdown()

    # --- inside

    async def _each(self, find: Callable[[], Sequence[UUID]], change: Callable[[Sequence[UUID]], None]) -> int:
        """Change points by slices until none is found; returns how many were changed."""
        changed = 0
        while found := await self._write(find):
            for some in slices(found, MAX_SLICE):
                await self._in_turn(change, some)
            changed += len(found)
        return changed

    async def _in_turn(self, call: Callable[..., T], *arguments: object) -> T:
        await self._give_way()
        return await self._write(call, *arguments)

    async def _search(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._searches, call, *arguments)
