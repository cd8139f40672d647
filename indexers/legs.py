"""Two engines as one index: vectors in one leg, texts in the other, each doing what it is built for.

Nothing here makes the two writes one: both carry the commit's number, which no search uses before the catalog has
advanced to it, and what a crash between them left is undone in both before the next write.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from indexers.base import (
    DenseIndex,
    Float32,
    Hit,
    Index,
    Manages,
    Metadata,
    Namespace,
    Point,
    StoredPoint,
    Stores,
    TextIndex,
    View,
)
from indexers.point import checked_points

T = TypeVar("T")


class Leg(Stores, Manages, Protocol):
    """What repair needs of a leg, whichever it is."""


def legs(index: Index) -> tuple[Leg, ...]:
    """The engines of an index, each of which must agree with the catalog."""
    return (index.dense, index.text) if isinstance(index, PairedIndex) else (index,)


class PairedIndex:
    """Implements indexers.base.Index. What is read besides comes from the dense leg, which holds the vectors."""

    def __init__(self, dense: DenseIndex, text: TextIndex) -> None:
        self.dense, self.text = dense, text

    # --- searches

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]:
        return await self.dense.search_dense(namespace, vector, view, top_k, exact=exact)

    async def search_text(self, namespace: Namespace, query: str, view: View, top_k: int) -> list[Hit]:
        return await self.text.search_text(namespace, query, view, top_k)

    # --- stores

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        checked = await asyncio.to_thread(checked_points, namespace.collection, points)  # before either leg has any
        bare = [replace(point, text=None) for point in checked]  # an engine of both kinds would index the text too
        await _both(self.dense.put(namespace, bare, commit), self.text.put(namespace, checked, commit))

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        await _both(self.dense.delete(namespace, ids, commit), self.text.delete(namespace, ids, commit))

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        await _both(
            self.dense.patch(namespace, ids, metadata, groups, commit),
            self.text.patch(namespace, ids, metadata, groups, commit),
        )

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        return await self.dense.fetch(namespace, ids, view)

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        return await self.dense.scan(namespace, view, after, limit)

    async def undo(self, namespace: Namespace, commit: int) -> None:
        await _both(self.dense.undo(namespace, commit), self.text.undo(namespace, commit))

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        removed, _ = await _both(self.dense.sweep(namespace, horizon), self.text.sweep(namespace, horizon))
        return removed

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        await _both(self.dense.purge(namespace, ids), self.text.purge(namespace, ids))

    # --- manages

    async def create(self, namespace: Namespace) -> None:
        await self.text.create(namespace)  # first: it refuses an unknown language
        await self.dense.create(namespace)

    async def drop(self, namespace: Namespace) -> None:
        await _both(self.dense.drop(namespace), self.text.drop(namespace))

    async def list(self, collection: str) -> list[str]:
        """Names of the namespaces that are in both legs."""
        dense, text = await _both(self.dense.list(collection), self.text.list(collection))
        return sorted(set(dense) & set(text))

    async def count(self, namespace: Namespace, view: View | None) -> int:
        return await self.dense.count(namespace, view)

    async def flush(self, namespace: Namespace) -> None:
        await _both(self.dense.flush(namespace), self.text.flush(namespace))

    async def close(self) -> None:
        await _both(self.dense.close(), self.text.close())


async def _both(dense: Coroutine[Any, Any, T], text: Coroutine[Any, Any, T]) -> tuple[T, T]:
    """Both results. If one leg fails the other is waited for all the same: a write that went on by itself could land
    after it was undone."""
    found = await asyncio.gather(dense, text, return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found[0], found[1]  # type: ignore[return-value]
