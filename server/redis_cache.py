"""The second level of the ranking cache: what one process ranked, the others find. No text is in it, ids alone."""

import asyncio
import hashlib
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from redis.asyncio import Redis as Client

from server.redis import Redis

V = TypeVar("V")

PREFIX = "refdesk:ranking:1:"  # the number is that of the encoding
WRITES = 64  # under way at once; more are left out, since nobody waits for them


class RedisCache(Generic[V]):
    """Values under the sha256 of their key. The key holds the commits read, so nothing is ever looked for to remove."""

    def __init__(
        self, redis: Redis, ttl_s: float, *, encode: Callable[[V], bytes], decode: Callable[[bytes | str], V]
    ) -> None:
        """`decode` raises ValueError for what `encode` has not made."""
        self._redis, self._ttl_ms = redis, math.ceil(ttl_s * 1000)
        self._encode, self._decode = encode, decode
        self._writing: set[asyncio.Task[object]] = set()

    async def get(self, key: Hashable) -> V | None:
        """The value under a key, if Redis has it and answers in time."""

        async def look(client: Client) -> V | None:
            found = await client.get(PREFIX + digest(key))
            return None if found is None else self._decode(found)

        return await self._redis.run(look, None)

    def put(self, key: Hashable, value: V) -> None:
        """Store a value beside whatever else is done."""

        encoded = self._encode(value)

        async def write(client: Client) -> object:
            return await client.set(PREFIX + digest(key), encoded, px=self._ttl_ms)

        if len(self._writing) < WRITES:
            task: asyncio.Task[object] = asyncio.ensure_future(self._redis.run(write, None))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait for what is being stored."""
        await asyncio.gather(*self._writing, return_exceptions=True)


def digest(key: Hashable) -> str:
    """sha256 of a key of nested tuples, sets, texts and numbers: equal keys of any two processes have the same."""
    return hashlib.sha256(repr(_ordered(key)).encode()).hexdigest()


def _ordered(part: object) -> object:
    if isinstance(part, tuple):
        return tuple(map(_ordered, part))
    return ("set", *sorted(part)) if isinstance(part, frozenset) else part
