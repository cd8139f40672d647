"""Tells an idle worker that there is a job: at once within a process; server/redis_bell.py does so among processes.

A bell that is not heard costs a moment: whoever waits looks at the catalog now and then all the same.
"""

import asyncio
from typing import Protocol


class Bell(Protocol):
    async def ring(self) -> None:
        """Wake one that waits, or the next who will."""
        ...

    async def wait(self, most_s: float) -> None:
        """Return when the bell rings, or after this time."""
        ...


class LocalBell:
    """The bell of one process."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    async def ring(self) -> None:
        self._rung.set()

    async def wait(self, most_s: float) -> None:
        try:
            async with asyncio.timeout(most_s):
                await self._rung.wait()
        except TimeoutError:
            return
        self._rung.clear()
