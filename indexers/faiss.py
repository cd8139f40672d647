"""The dense leg in this process by exhaustive search with faiss, on the CPU or one GPU: exact, so that others are
measured against it. A namespace is a folder with one SQLite file, read into memory when it is first used.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

from indexers.base import Float32, Hit, Metadata, Namespace, Point, StoredPoint, View
from indexers.bounded import slices
from indexers.faiss_folders import FaissFolders
from indexers.faiss_partition import Partition
from indexers.faiss_vectors import has_gpu
from indexers.open_folders import OpenFolders
from indexers.point import check_groups, checked_metadata, checked_points
from indexers.ties import search_ranked

Device = Literal["auto", "cpu", "gpu"]
_SLICE = 1000  # points or ids of one transaction; searches come in between two


class FaissIndex:
    """Implements indexers.base.DenseIndex. One process may own `root`; who takes the lock is the caller's business."""

    def __init__(self, root: Path, most_open: int, open_one: Callable[[Path], Partition]) -> None:
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="faiss")
        self._partitions = OpenFolders(root, most_open, FaissFolders(open_one), self._threads)
        self._run = self._partitions.run

    @classmethod
    def open(
        cls, root: Path, *, device: Device = "auto", most_open: int = 64, rebuild_from: int = 10_000
    ) -> "FaissIndex":
        """Open the index under a folder, which is made if need be. `most_open` namespaces are kept in memory, with
        removed points until there are `rebuild_from` and more than others. "auto" is the GPU if faiss finds one."""
        on_gpu = device == "gpu" or (device == "auto" and has_gpu())
        return cls(root, most_open, partial(Partition, rebuild_from=rebuild_from, on_gpu=on_gpu))

    @property
    def open_namespaces(self) -> int:
        """How many namespaces are in memory now."""
        return self._partitions.open_count

    # --- searches

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        """`exact` changes nothing: it always is."""
        async with self._partitions.use(namespace) as partition:

            async def search(limit: int) -> list[Hit]:
                return await self._run(partition.search, vector, view, limit)

            return await search_ranked(search, top_k)

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        async with self._partitions.use(namespace) as partition:
            for some in slices(await self._run(checked_points, partition.spec, points), _SLICE):
                await self._run(partition.put, some, commit)

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        async with self._partitions.use(namespace) as partition:
            await self._run(partition.end, ids, commit)

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        changes = checked_metadata(metadata)
        check_groups(groups or ())
        distinct = None if groups is None else tuple(dict.fromkeys(groups))
        async with self._partitions.use(namespace) as partition:
            for some in slices(ids, _SLICE):
                await self._run(partition.patch, some, changes, distinct, commit)

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        async with self._partitions.use(namespace) as partition:
            return {point.id: point for point in await self._run(partition.fetch, ids, view)}

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        async with self._partitions.use(namespace) as partition:
            found, last = await self._run(partition.scan, view, int(after or 0), limit)
        return found, None if last is None else str(last)

    async def undo(self, namespace: Namespace, commit: int) -> None:
        async with self._partitions.use(namespace) as partition:
            await self._run(partition.undo, commit)

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        async with self._partitions.use(namespace) as partition:
            return await self._run(partition.sweep, horizon)

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        async with self._partitions.use(namespace) as partition:
            await self._run(partition.purge, ids)

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        await self._partitions.create(namespace)

    async def drop(self, namespace: Namespace) -> None:
        await self._partitions.drop(namespace)

    async def list(self, collection: str) -> list[str]:
        return await self._partitions.names(collection)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        async with self._partitions.use(namespace) as partition:
            return await self._run(partition.count, view)

    async def flush(self, namespace: Namespace) -> None:
        async with self._partitions.use(namespace) as partition:
            await self._run(partition.flush)

    async def close(self) -> None:
        """Wait for the calls under way, make everything durable and let go of the files."""
        await self._partitions.close()
        self._threads.shutdown()
