"""Who may write a namespace now: one writer at a time, in this process or, where processes share a catalog, in all.

An engine outside of this process may still carry out what a writer asked for that has died meanwhile: who takes over
waits `takeover_s` before undoing it.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol
from weakref import WeakValueDictionary


class Lease(Protocol):
    """The right to write a namespace, for as long as the context lasts."""

    async def check(self) -> None:
        """Raises CatalogUnavailableError if the lease was lost: another process may be writing already."""
        ...


class Leases(Protocol):
    takeover_s: float

    def hold(self, namespace_id: int) -> AbstractAsyncContextManager[Lease]:
        """Wait until nobody else writes the namespace. Raises CatalogUnavailableError."""
        ...

    def hold_if_free(self, namespace_id: int) -> AbstractAsyncContextManager[Lease | None]:
        """The lease, or None if another process holds it; waits for this process's own holders."""
        ...


class LocalLease:
    """Cannot be lost: the process has the catalog alone."""

    async def check(self) -> None:
        pass


class LocalLeases:
    """Leases among the tasks of one process, which owns its catalog and its index."""

    takeover_s = 0.0

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, namespace_id: int) -> AsyncGenerator[Lease, None]:
        async with self._locks.setdefault(namespace_id, asyncio.Lock()):
            yield LocalLease()

    def hold_if_free(self, namespace_id: int) -> AbstractAsyncContextManager[Lease | None]:
        return self.hold(namespace_id)
