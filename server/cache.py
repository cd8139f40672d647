"""The cache: in memory (L1) bounded and with a lifetime, beneath it perhaps a shared one (L2), and one computation for
equal questions that arrive together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

V = TypeVar("V")
Level = Literal["l1", "l2"]


class Beneath(Protocol[V]):
    """A cache that processes share. It raises nothing: what fails was not there, or is not kept."""

    async def get(self, key: Hashable) -> V | None: ...

    def put(self, key: Hashable, value: V) -> None: ...


@dataclass(slots=True)
class _Flight(Generic[V]):
    task: "asyncio.Task[tuple[V, Level | None]]"
    waiters: int = 0


class Cache(Generic[V]):
    """Least recently used goes first. A key must hold all that shapes the value: nothing is ever invalidated."""

    def __init__(
        self,
        max_entries: int,
        ttl_s: float,
        *,
        beneath: Beneath[V] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries, self._ttl_s, self._beneath, self._clock = max_entries, ttl_s, beneath, clock
        self._entries: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._flights: dict[Hashable, _Flight[V]] = {}
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(
        self, key: Hashable, compute: Callable[[], Awaitable[V]], *, keep: Callable[[V], bool] = lambda _: True
    ) -> tuple[V, Level | None]:
        """The value under `key` and where it was found; `keep` says of a new value whether it may be stored.

        Callers that wait for the same key share one computation; it is cancelled when the last of them has left.
        """
        entry = self._entries.get(key)
        if entry is not None and entry[0] > self._clock():
            self._entries.move_to_end(key)
            self.hits += 1
            return entry[1], "l1"
        self.misses += 1
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(self._compute(key, compute, keep)))
        return await self._wait(key, flight)

    async def _compute(
        self, key: Hashable, compute: Callable[[], Awaitable[V]], keep: Callable[[V], bool]
    ) -> tuple[V, Level | None]:
        found = await self._beneath.get(key) if self._beneath is not None else None
        value = await compute() if found is None else found
        if keep(value):
            self._store(key, value)
            if self._beneath is not None and found is None:
                self._beneath.put(key, value)
        return value, None if found is None else "l2"

    def _store(self, key: Hashable, value: V) -> None:
        if self._max_entries:
            self._entries[key] = (self._clock() + self._ttl_s, value)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    async def _wait(self, key: Hashable, flight: _Flight[V]) -> tuple[V, Level | None]:
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def clear(self) -> None:
        self._entries.clear()
