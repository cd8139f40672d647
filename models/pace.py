"""How fast bulk work may call a server: so many requests at once, and so many a minute."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """Bounds requests in flight and, by a leaky bucket (GCRA), their rate; `in_flight` of them may come as a burst."""

    def __init__(self, in_flight: int, requests_per_minute: float) -> None:
        self._slots = asyncio.Semaphore(in_flight)
        self._interval_s = 60.0 / requests_per_minute
        self._tolerance_s = self._interval_s * (in_flight - 1)
        self._due = 0.0  # when the next request would come at an even pace

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place and for the pace, and hold the place meanwhile."""
        async with self._slots:
            now = time.monotonic()
            wait_s = self.take(now)
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            yield

    def take(self, now: float) -> float:
        """Seconds that a request which comes now must wait; it is then counted."""
        due = max(self._due, now)
        self._due = due + self._interval_s
        return max(0.0, due - self._tolerance_s - now)
