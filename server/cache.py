"""The in-memory cache (L1): bounded, with a lifetime, and one computation for equal questions that arrive together."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(slots=True)
class _Flight(Generic[V]):
    task: "asyncio.Task[V]"
    waiters: int = 0


class Cache(Generic[V]):
    """Least recently used goes first. A key must hold all that shapes the value: nothing is ever invalidated."""

    def __init__(self, max_entries: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries, self._ttl_s, self._clock = max_entries, ttl_s, clock
        self._entries: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._flights: dict[Hashable, _Flight[V]] = {}
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def get(
        self, key: Hashable, compute: Callable[[], Awaitable[V]], *, keep: Callable[[V], bool] = lambda _: True
    ) -> tuple[V, bool]:
        """The value under `key` and whether it was there; `keep` says of a new value whether it may be stored.

        Callers that wait for the same key share one computation; it is cancelled when the last of them has left.
        """
        entry = self._entries.get(key)
        if entry is not None and entry[0] > self._clock():
            self._entries.move_to_end(key)
            self.hits += 1
            return entry[1], True
        self.misses += 1
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(self._compute(key, compute, keep)))
        return await self._wait(key, flight), False

    async def _compute(self, key: Hashable, compute: Callable[[], Awaitable[V]], keep: Callable[[V], bool]) -> V:
        value = await compute()
        if self._max_entries and keep(value):
            self._entries[key] = (self._clock() + self._ttl_s, value)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return value

    async def _wait(self, key: Hashable, flight: _Flight[V]) -> V:
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
