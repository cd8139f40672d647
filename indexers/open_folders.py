"""Which namespaces of an engine that keeps them in folders are open: each from its first use on, at most so many at
once, the least recently used closed first. One in use is never closed: if all are, there are more open than the bound
says until one is given back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from indexers.base import IndexUnavailableError, Namespace, NamespaceNotFoundError
from indexers.folders import finish, folder_path, folders, remove, remove_leftovers, unfinished


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T")
R = TypeVar("R", bound=Closable)
Made = TypeVar("Made", bound=Closable, covariant=True)


class Engine(Protocol[Made]):
    """What is done in a folder; all of it blocks, and runs in the pool's threads."""

    def make(self, path: Path, namespace: Namespace) -> None:
        """Write an empty namespace into an empty folder, which is moved afterwards."""

    def open(self, path: Path) -> Made:
        """Raises FileNotFoundError where there is no namespace."""

    def name(self, path: Path) -> str:
        """The name of the namespace whose folder this is."""

    def map_errors(self, what: object) -> AbstractContextManager[None]:
        """Translates what files and engine raise."""


@dataclass(slots=True, eq=False)
class Entry(Generic[R]):
    """A namespace that was used. `door` is held while it is opened, closed, made or removed."""

    door: asyncio.Lock = field(default_factory=asyncio.Lock)
    writer: asyncio.Lock = field(default_factory=asyncio.Lock)
    unused: asyncio.Event = field(default_factory=asyncio.Event)
    opening: "asyncio.Task[None] | None" = None  # goes on when whoever waited for it has left
    opened: R | None = None
    users: int = 0
    used_at: int = 0

    async def wait_until_unused(self) -> None:
        """For whoever holds the door: nobody comes in meanwhile."""
        while self.users:
            await self.unused.wait()


class OpenFolders(Generic[R]):
    """The namespaces under a folder. `threads`, the caller's to shut down, run what blocks."""

    def __init__(self, root: Path, most_open: int, engine: Engine[R], threads: Executor) -> None:
        self._root, self._most_open = root, most_open
        self._engine, self._threads = engine, threads
        self._entries: dict[Path, Entry[R]] = {}
        self._opened: set[Entry[R]] = set()  # those of them that are open
        self._clock = count()
        self._is_closed = False
        with engine.map_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            remove_leftovers(root)

    @property
    def open_count(self) -> int:
        return len(self._opened)

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """A blocking call in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @asynccontextmanager
    async def use(self, namespace: Namespace) -> AsyncIterator[R]:
        """The namespace, open until the block ends. Raises NamespaceNotFoundError."""
        entry = self._entry(namespace)
        async with entry.door:
            opened = await self._open_once(entry, namespace)
            entry.users += 1
            entry.unused.clear()
            entry.used_at = next(self._clock)
        try:
            await self._close_surplus()
            yield opened
        finally:
            entry.users -= 1
            if not entry.users:
                entry.unused.set()

    @asynccontextmanager
    async def write(self, namespace: Namespace) -> AsyncIterator[R]:
        """The same for one writer at a time."""
        async with self._entry(namespace).writer, self.use(namespace) as opened:
            yield opened

    async def create(self, namespace: Namespace) -> None:
        """Make it, if it is not there."""
        path = self._path(namespace)
        async with self._entries.setdefault(path, Entry()).door:
            await self.run(self._make, path, namespace)

    async def drop(self, namespace: Namespace) -> None:
        path = self._path(namespace)
        entry = self._entries.setdefault(path, Entry())
        async with entry.door:
            await self._close(entry)
            await self.run(self._remove, path)

    async def names(self, collection: str) -> list[str]:
        """The names of a collection's namespaces, sorted."""
        self._check_open()
        return await self.run(self._names, collection)

    async def close(self) -> None:
        """Close every namespace, each when the last call in it has ended."""
        self._is_closed = True
        for entry in self._entries.values():
            async with entry.door:
                await self._close(entry)
        self._entries.clear()

    # --- for what an engine adds

    def _path(self, namespace: Namespace) -> Path:
        self._check_open()
        return folder_path(self._root, namespace.collection.name, namespace.name)

    def _entry(self, namespace: Namespace) -> Entry[R]:
        path = self._path(namespace)
        if path not in self._entries and not path.exists():
            raise _missing(namespace)
        return self._entries.setdefault(path, Entry())

    # --- inside

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    async def _close_surplus(self) -> None:
        surplus = len(self._opened) - self._most_open
        if surplus <= 0:
            return
        for entry in sorted(self._opened, key=lambda e: e.used_at)[:surplus]:
            if not entry.users and not entry.door.locked():
                async with entry.door:
                    if not entry.users:
                        await self._close(entry)

    async def _open_once(self, entry: Entry[R], namespace: Namespace) -> R:
        """What a call with a deadline began to open is open for the next one, however long it takes."""
        if entry.opened is None:
            if entry.opening is None:
                entry.opening = asyncio.create_task(self._open_into(entry, namespace))
                entry.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(entry.opening)
            assert entry.opened is not None
        return entry.opened

    async def _open_into(self, entry: Entry[R], namespace: Namespace) -> None:
        try:
            entry.opened = await self.run(self._open, namespace)
            self._opened.add(entry)
        finally:
            entry.opening = None

    async def _close(self, entry: Entry[R]) -> None:
        await entry.wait_until_unused()
        if entry.opening is not None:
            await asyncio.wait({entry.opening})
        if entry.opened is not None:
            opened, entry.opened = entry.opened, None
            self._opened.discard(entry)
            await self.run(opened.close)

    def _open(self, namespace: Namespace) -> R:
        with self._engine.map_errors(namespace):
            try:
                return self._engine.open(self._path(namespace))
            except FileNotFoundError:
                raise _missing(namespace) from None

    def _make(self, path: Path, namespace: Namespace) -> None:
        with self._engine.map_errors(namespace):
            if not path.exists():
                made = unfinished(path)
                self._engine.make(made, namespace)
                finish(made, path)

    def _remove(self, path: Path) -> None:
        with self._engine.map_errors(path):
            if path.exists():
                remove(path)

    def _names(self, collection: str) -> list[str]:
        with self._engine.map_errors(self._root):
            return sorted(self._engine.name(path) for path in folders(self._root, collection))


def _missing(namespace: Namespace) -> NamespaceNotFoundError:
    return NamespaceNotFoundError(f"no namespace {str(namespace)!r} in the index; create it first")
