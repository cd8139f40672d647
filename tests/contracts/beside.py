"""A leg beside an index in memory that does what the leg does not, so that one suite runs on legs and whole indexes."""

from collections.abc import Callable, Sequence

from indexers.base import DenseIndex, Float32, Hit, Metadata, Namespace, Point, StoredPoint, View
from indexers.memory import MemoryIndex


class DenseBesideMemory:
    """An Index: text is searched in memory, everything else is the dense leg's."""

    def __init__(self, dense: DenseIndex, stop: Callable[[], None] | None = None) -> None:
        """`stop` ends what the leg runs on, after the leg is closed."""
        self.dense = dense
        self._text = MemoryIndex()
        self._stop = stop

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        return await self.dense.search_dense(namespace, vector, view, top_k, exact=exact)

    async def search_text(self, namespace: Namespace, query: str, view: View, top_k: int) -> list[Hit]:
        return await self._text.search_text(namespace, query, view, top_k)

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        await self.dense.put(namespace, points, commit)
        await self._text.put(namespace, points, commit)

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        await self.dense.delete(namespace, ids, commit)
        await self._text.delete(namespace, ids, commit)

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        await self.dense.patch(namespace, ids, metadata, groups, commit)
        await self._text.patch(namespace, ids, metadata, groups, commit)

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        return await self.dense.fetch(namespace, ids, view)

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        return await self.dense.scan(namespace, view, after, limit)

    async def undo(self, namespace: Namespace, commit: int) -> None:
        await self.dense.undo(namespace, commit)
        await self._text.undo(namespace, commit)

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        await self._text.sweep(namespace, horizon)
        return await self.dense.sweep(namespace, horizon)

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        await self.dense.purge(namespace, ids)
        await self._text.purge(namespace, ids)

    async def create(self, namespace: Namespace) -> None:
        await self._text.create(namespace)
        await self.dense.create(namespace)

    async def drop(self, namespace: Namespace) -> None:
        await self.dense.drop(namespace)
        await self._text.drop(namespace)

    async def list(self, collection: str) -> list[str]:
        return await self.dense.list(collection)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        return await self.dense.count(namespace, view)

    async def flush(self, namespace: Namespace) -> None:
        await self.dense.flush(namespace)

    async def close(self) -> None:
        await self.dense.close()
        await self._text.close()
        if self._stop:
            self._stop()
