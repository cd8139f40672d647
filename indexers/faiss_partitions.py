"""Which namespaces of the faiss index are in memory: each from its first use on, at most so many at once, the least
recently used closed first. One in use is never closed: if all are, there are more than the bound says for a while.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

from indexers.base import IndexUnavailableError, Namespace, NamespaceNotFoundError
from indexers.edge_folder import folder_path, remove, remove_leftovers, sync, unfinished
from indexers.faiss_partition import Partition
from indexers.faiss_rows import Rows, map_errors

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    """A namespace that was used. `door` is held while it is opened, closed, made or removed."""

    door: asyncio.Lock = field(default_factory=asyncio.Lock)
    unused: asyncio.Event = field(default_factory=asyncio.Event)
    partition: Partition | None = None
    users: int = 0
    used_at: int = 0


class OpenPartitions:
    """The namespaces under a folder."""

    def __init__(self, root: Path, most_open: int, open_one: Callable[[Path], Partition]) -> None:
        self._root = root
        self._most_open = most_open
        self._open_one = open_one
        self._entries: dict[Path, _Entry] = {}
        self._clock = count()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="faiss")
        self._is_closed = False
        with map_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            remove_leftovers(root)

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """A blocking call in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @asynccontextmanager
    async def use(self, namespace: Namespace) -> AsyncIterator[Partition]:
        """The namespace, open until the block ends. Raises NamespaceNotFoundError."""
        path = self._path(namespace)
        entry = self._entries.get(path)
        if entry is None:
            if not path.exists():
                raise _missing(namespace)
            entry = self._entries.setdefault(path, _Entry())
        async with entry.door:
            if entry.partition is None:
                entry.partition = await self.run(self._open, path, namespace)
            entry.users += 1
            entry.unused.clear()
            entry.used_at = next(self._clock)
        try:
            await self._close_surplus()
            yield entry.partition
        finally:
            entry.users -= 1
            if not entry.users:
                entry.unused.set()

    async def create(self, namespace: Namespace) -> None:
        path = self._path(namespace)
        async with self._entries.setdefault(path, _Entry()).door:
            await self.run(_make, path, namespace)

    async def drop(self, namespace: Namespace) -> None:
        path = self._path(namespace)
        entry = self._entries.setdefault(path, _Entry())
        async with entry.door:
            await self._close(entry)
            await self.run(_drop, path)

    async def names(self, collection: str) -> list[str]:
        """The names of a collection's namespaces, sorted."""
        self._check_open()
        return await self.run(_names, folder_path(self._root, collection, "").parent)

    async def close(self) -> None:
        """Flush and close every namespace, each when the last call in it has ended."""
        self._is_closed = True
        for entry in self._entries.values():
            async with entry.door:
                await self._close(entry)
        self._entries.clear()
        self._threads.shutdown()

    # --- inside

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    def _path(self, namespace: Namespace) -> Path:
        self._check_open()
        return folder_path(self._root, namespace.collection.name, namespace.name)

    def _open(self, path: Path, namespace: Namespace) -> Partition:
        with map_errors(namespace):
            try:
                return self._open_one(path)
            except FileNotFoundError:
                raise _missing(namespace) from None

    async def _close_surplus(self) -> None:
        opened = [entry for entry in self._entries.values() if entry.partition is not None]
        for entry in sorted(opened, key=lambda e: e.used_at)[: max(0, len(opened) - self._most_open)]:
            if not entry.users and not entry.door.locked():
                async with entry.door:
                    if not entry.users:
                        await self._close(entry)

    async def _close(self, entry: _Entry) -> None:
        while entry.users:
            await entry.unused.wait()
        if entry.partition is not None:
            partition, entry.partition = entry.partition, None
            await self.run(partition.close)


def _missing(namespace: Namespace) -> NamespaceNotFoundError:
    return NamespaceNotFoundError(f"no namespace {str(namespace)!r} in the index; create it first")


def _make(path: Path, namespace: Namespace) -> None:
    if path.exists():
        return
    with map_errors(namespace):
        new = unfinished(path)
        new.mkdir()
        Rows.make(new, namespace)
        sync(new)
        new.rename(path)
        sync(path.parent)


def _names(parent: Path) -> list[str]:
    with map_errors(parent):
        if not parent.is_dir():
            return []
        return sorted(Rows.name_in(path) for path in parent.iterdir() if not path.name.startswith("."))


def _drop(path: Path) -> None:
    with map_errors(path):
        if path.exists():
            remove(path)
