"""Repeating a request that failed for a moment: exponential backoff with full jitter, within a budget.

Waits are drawn from [0, min(most, base · 2ⁿ)] (Brooker, "Exponential Backoff And Jitter", 2015). Retries beyond a tenth
of the requests are not made, so that an outage is not multiplied by those who wait for its end.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")
_PATIENCE_S = 60.0  # a server that asks for a longer wait than this is taken to be down


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a request is tried, and how long is waited between."""

    attempts: int = 5
    base_s: float = 0.2
    most_s: float = 10.0

    def ceiling_s(self, retry: int) -> float:
        """The longest wait before a retry; the first is number 0."""
        return min(self.most_s, self.base_s * 2.0**retry)


class Budget:
    """Retries that may still be made: each request earns a tenth of one, and `reserve` are there from the start, which
    is also the most that is ever saved up."""

    def __init__(self, share: float = 0.1, reserve: float = 20.0) -> None:
        self._share = share
        self._reserve = reserve
        self._left = reserve

    def earn(self) -> None:
        self._left = min(self._reserve, self._left + self._share)

    def spend(self) -> bool:
        """Take one retry; False if there is none left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Retries:
    """The retries of one backend: all its requests share the budget."""

    def __init__(self, backoff: Backoff | None = None, budget: Budget | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._budget = budget or Budget()

    async def run(self, request: Callable[[], Awaitable[T]], wait_s: Callable[[Exception], float | None]) -> T:
        """The request's result. It must be idempotent. `wait_s` says of an error how many seconds the server asks to
        wait (0 if it does not say), or None if repeating is useless; the last error is raised as it came."""
        self._budget.earn()
        for retry in range(self._backoff.attempts - 1):
            try:
                return await request()
            except Exception as exc:
                asked_s = wait_s(exc)
                if asked_s is None or asked_s > _PATIENCE_S or not self._budget.spend():
                    raise
            await asyncio.sleep(max(asked_s, random.uniform(0, self._backoff.ceiling_s(retry))))
        return await request()


def wait_of_status(status: int, retry_after: str | None) -> float | None:
    """Seconds to wait before repeating a request answered by this HTTP status, or None: 408, 429 and 5xx are repeated,
    no other 4xx. `retry_after` is the header: seconds or a date (RFC 9110, 10.2.3)."""
    if status not in (408, 429) and not 500 <= status < 600:
        return None
    if not retry_after:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
