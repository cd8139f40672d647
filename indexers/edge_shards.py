"""Which shards are open: each on first use, at most so many at once, the least recently used closed first.

A shard in use is never closed: if all are, there are more open than the bound says until one is given back.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from indexers.base import IndexUnavailableError, Namespace, NamespaceNotFoundError
from indexers.bm25 import Bm25
from indexers.edge_folder import Folder, folder_path, folders, read_folder, remove, remove_leftovers, unfinished
from indexers.edge_shard import Shard, create_shard, map_errors

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    """A namespace that was used. `door` is held while its shard is opened, closed, made or removed."""

    door: asyncio.Lock = field(default_factory=asyncio.Lock)
    writer: asyncio.Lock = field(default_factory=asyncio.Lock)
    unused: asyncio.Event = field(default_factory=asyncio.Event)
    shard: Shard | None = None
    users: int = 0
    used_at: int = 0


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """`open_at_once`: how many shards; `large_from`: points from which on a shard is a large one."""

    open_at_once: int
    large_from: int


class OpenShards:
    """The namespaces under a folder, and the shards of them that are open."""

    def __init__(self, root: Path, limits: ShardLimits, files: ThreadPoolExecutor) -> None:
        """`files` is the one thread that opens, writes and closes: a shard is then never closed under a write."""
        self._root = root
        self._limits = limits
        self._entries: dict[Path, _Entry] = {}
        self._clock = count()
        self._files = files
        self._is_closed = False
        with map_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            remove_leftovers(root)

    @property
    def open_count(self) -> int:
        return sum(entry.shard is not None for entry in self._entries.values())

    @asynccontextmanager
    async def use(self, namespace: Namespace) -> AsyncIterator[Shard]:
        """The namespace's shard, open until the block ends. Raises NamespaceNotFoundError."""
        entry = self._entry(namespace)
        async with entry.door:
            if entry.shard is None:
                entry.shard = await self._blocking(self._load, namespace)
            entry.users += 1
            entry.unused.clear()
            entry.used_at = next(self._clock)
        try:
            await self._close_surplus()
            yield entry.shard
        finally:
            entry.users -= 1
            if not entry.users:
                entry.unused.set()

    @asynccontextmanager
    async def write(self, namespace: Namespace) -> AsyncIterator[Shard]:
        """The same for one writer at a time."""
        async with self._entry(namespace).writer, self.use(namespace) as shard:
            yield shard

    async def copy(self, namespace: Namespace) -> None:
        """Copy a namespace into a new shard of the form that its size asks for, slice by slice, and go on with that
        one. Writers wait; searches go on in the old shard until the new one takes its place in one step."""
        entry = self._entry(namespace)
        async with entry.writer:
            async with self.use(namespace) as shard:
                copy = await self._copy(shard)
            async with entry.door:
                while entry.users:
                    await entry.unused.wait()
                await self._blocking(_switch, copy)
                old, entry.shard = entry.shard, copy
            await self._blocking(_discard, old, shard.folder.shard_path)

    async def _copy(self, shard: Shard) -> Shard:
        folder = await self._blocking(shard.folder.with_next_shard)
        is_large = await self._blocking(shard.count, None) >= self._limits.large_from
        await self._blocking(partial(create_shard, folder.shard_path, folder, is_large=is_large))
        copy = await self._blocking(Shard, folder)
        after = await self._blocking(shard.copy_some, copy, None)
        while after is not None:
            after = await self._blocking(shard.copy_some, copy, after)
        await self._blocking(copy.measure)
        await self._blocking(copy.flush)
        return copy

    async def create(self, namespace: Namespace) -> None:
        path = self._path(namespace)
        async with self._entries.setdefault(path, _Entry()).door:
            await self._blocking(_create, path, namespace)

    async def drop(self, namespace: Namespace) -> None:
        path = self._path(namespace)
        entry = self._entries.setdefault(path, _Entry())
        async with entry.door:
            await self._close(entry)
            await self._blocking(_drop, path)

    async def list(self, collection: str) -> list[str]:
        self._check_open()
        return await self._blocking(_names, self._root, collection)

    async def close(self) -> None:
        """Flush and close every shard, each when the last call in it has ended."""
        self._is_closed = True
        for entry in self._entries.values():
            async with entry.door:
                await self._close(entry)
        self._entries.clear()

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    def _path(self, namespace: Namespace) -> Path:
        self._check_open()
        return folder_path(self._root, namespace.collection.name, namespace.name)

    def _entry(self, namespace: Namespace) -> _Entry:
        path = self._path(namespace)
        if path not in self._entries and not path.exists():
            raise _missing(namespace)
        return self._entries.setdefault(path, _Entry())

    async def _close_surplus(self) -> None:
        opened = [entry for entry in self._entries.values() if entry.shard is not None]
        surplus = len(opened) - self._limits.open_at_once
        if surplus <= 0:
            return
        for entry in sorted(opened, key=lambda e: e.used_at)[:surplus]:
            if not entry.users and not entry.door.locked():
                async with entry.door:
                    if not entry.users:
                        await self._close(entry)

    async def _close(self, entry: _Entry) -> None:
        while entry.users:
            await entry.unused.wait()
        if entry.shard is not None:
            shard, entry.shard = entry.shard, None
            await self._blocking(shard.close)

    def _load(self, namespace: Namespace) -> Shard:
        try:
            return Shard(read_folder(self._path(namespace)))
        except FileNotFoundError:
            raise _missing(namespace) from None

    async def _blocking(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, call, *arguments)


def _missing(namespace: Namespace) -> NamespaceNotFoundError:
    return NamespaceNotFoundError(f"no namespace {str(namespace)!r} in the index; create it first")


def _create(path: Path, namespace: Namespace) -> None:
    if path.exists():
        return
    Bm25(namespace.collection.language)  # refuses an unknown language before there are files
    with map_errors(namespace):
        new = Folder(unfinished(path), namespace.collection, namespace.name)
        new.path.mkdir()
        create_shard(new.shard_path, new, is_large=False)
        new.save()
        new.path.rename(path)


def _switch(copy: Shard) -> None:
    with map_errors(copy.folder.name):
        copy.folder.save()


def _discard(old: Shard | None, path: Path) -> None:
    if old is not None:
        old.close()
    with map_errors(path):
        shutil.rmtree(path)


def _drop(path: Path) -> None:
    with map_errors(path):
        if path.exists():
            remove(path)


def _names(root: Path, collection: str) -> list[str]:
    with map_errors(root):
        return sorted(folder.name for folder in folders(root, collection))
