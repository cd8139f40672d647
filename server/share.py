"""How searches and an ingestion of one process share its CPU and its interpreter.

Bulk threads give way at once (models/priority.py), so a search beside an ingestion is about as fast as without it, and
a client that never pauses would take most of the cores: the answer to a search that comes too soon is held a little.
And what holds the interpreter for some milliseconds lets the searches end that are being computed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BURST = 10  # searches that may come at once
HELD_S = 0.032  # from a search's beginning: an answer that is ready later is not held, which leaves an ingestion less
FIRST_GUESS_S = 0.01  # what a search takes, before any was measured
NEWEST = 0.1  # the newest search's part in the running mean of what one takes
GIVE_WAY_S = 0.015  # a bulk step waits no longer for the searches: under many clients there is always one


class Share:
    """Holds answers by the generic cell rate algorithm (ITU-T I.371), a search counting as one core while it runs."""

    def __init__(self, ingestion: float, cores: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """`ingestion`: of `cores`, what is left to it, below 1; 0: no answer is held."""
        self._searching = cores * (1.0 - ingestion)  # seconds of search a second
        self._is_held = ingestion > 0.0
        self._clock = clock
        self._ingestions = self._searches = 0
        self._none_computes = asyncio.Event()
        self._search_s = FIRST_GUESS_S
        self._due = 0.0  # when the next search would come at an even pace

    @contextmanager
    def ingesting(self) -> Iterator[None]:
        """Answers may be held meanwhile."""
        self._ingestions += 1
        try:
            yield
        finally:
            self._ingestions -= 1

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A search computes; bulk steps wait meanwhile."""
        self._searches += 1
        try:
            yield
        finally:
            self._searches -= 1
            if not self._searches:
                self._none_computes.set()

    async def hold(self, began: float) -> None:
        """Wait until the answer of a search that began then, and is ready now, may go."""
        now = self._clock()
        self._search_s += NEWEST * (min(now - began, HELD_S) - self._search_s)  # one slow search says little of others
        if self._is_held and self._ingestions and (wait_s := self.take(began) - now) > 0:
            await asyncio.sleep(wait_s)

    def take(self, began: float) -> float:
        """Count a search that began then; when its answer may go."""
        interval_s = self._search_s / self._searching
        tolerance_s = (BURST - 1) * interval_s
        ahead_s = max(self._due - began, 0.0) + interval_s
        self._due = began + min(ahead_s, tolerance_s + HELD_S)
        return self._due - tolerance_s

    async def give_way(self) -> None:
        """Before a bulk step that holds the interpreter: wait until no search computes, or GIVE_WAY_S."""
        if self._searches:
            self._none_computes.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(GIVE_WAY_S):
                    await self._none_computes.wait()
