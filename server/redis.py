"""Redis, whose loss costs speed and nothing else: a failure is counted, logged once a minute, and the caller goes on.

One that is slow or gone is left alone for a while, instead of being waited for by every search.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from server.base import InvalidRequestError

T = TypeVar("T")
Outcome = Literal["ok", "error", "skipped"]

FAILURES = 3  # in a row, and Redis is left alone …
PAUSE_S, PAUSE_MOST_S = 1.0, 30.0  # … for this long, doubled each time
LOG_S = 60.0

log = logging.getLogger("refdesk.redis")


class Redis:
    """A client of one server. `counts` are of commands by outcome, for the metrics."""

    def __init__(
        self,
        url: str,
        password: str | None = None,
        *,
        timeout_s: float = 0.1,
        connections: int = 128,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url`: redis://[user@]host:port/number, rediss:// for TLS; `connections`: as many as commands at once.
        Nothing is contacted yet.

        Raises InvalidRequestError, never showing the URL: it may hold a password.
        """
        if urlsplit(url).scheme not in {"redis", "rediss", "unix"} or not (urlsplit(url).netloc or urlsplit(url).path):
            raise InvalidRequestError("redis_url is no URL of Redis: write redis://host:6379/0", "redis_url")
        self._client = Client.from_url(
            url,
            password=password,  # one in the URL goes before it
            socket_timeout=None,  # `run` times all of it
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=connections,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._timeout_s, self._clock = timeout_s, clock
        self._failures = 0
        self._pause_s = PAUSE_S
        self._alone_until = 0.0
        self._logged_at = float("-inf")
        self.counts: Counter[Outcome] = Counter()

    async def run(self, command: Callable[["Client"], Awaitable[T]], otherwise: T, *, wait_s: float = 0.0) -> T:
        """A command's answer; `otherwise` if there is none in time, or while Redis is left alone.

        `wait_s`: what the command itself may wait for something to come.
        """
        if self._clock() < self._alone_until:
            self.counts["skipped"] += 1
            return otherwise
        is_trial = self._failures >= FAILURES
        if is_trial:  # one tries whether it is back; the others go on without
            self._alone_until = self._clock() + self._pause_s
        answer = otherwise
        try:
            async with asyncio.timeout(self._timeout_s + wait_s):
                answer = await command(self._client)
            self.counts["ok"] += 1
        except (ResponseError, ValueError) as exc:  # refused, or no value of ours: it answers
            self._note(exc)
        except (RedisError, OSError) as exc:
            self._note(exc)
            self._failures += 1
            if is_trial:
                self._pause_s = min(PAUSE_MOST_S, 2 * self._pause_s)
            if self._failures >= FAILURES:
                self._alone_until = self._clock() + self._pause_s
            return otherwise
        self._failures, self._pause_s, self._alone_until = 0, PAUSE_S, 0.0
        return answer

    def _note(self, error: Exception) -> None:
        self.counts["error"] += 1
        if self._clock() - self._logged_at >= LOG_S:
            self._logged_at = self._clock()
            log.warning("redis failed, going on without (%s); told once a minute", type(error).__name__)

    async def close(self) -> None:
        await self._client.aclose()
