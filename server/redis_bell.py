"""The queue between processes: a token for each job in a list of Redis, which an idle worker of any process takes.

The catalog's table is the truth: a token says only that it is worth a look, and losing tokens loses nothing.
"""

import asyncio

from redis.asyncio import Redis as Client

from server.bell import LocalBell
from server.redis import Redis

QUEUE = "refdesk:jobs"
LATE_S = 0.5  # Redis looks ten times a second whose wait is over
MOST = 1000  # tokens kept; workers who look unasked leave some over


class RedisBell:
    """While Redis does not answer, a process's own jobs wake its own workers."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._local = redis, LocalBell()

    async def ring(self) -> None:
        async def push(client: Client) -> bool:
            async with client.pipeline(transaction=False) as pipeline:
                pipeline.lpush(QUEUE, b"")
                pipeline.ltrim(QUEUE, 0, MOST - 1)
                await pipeline.execute()
            return True

        if not await self._redis.run(push, otherwise=False):
            await self._local.ring()

    async def wait(self, most_s: float) -> None:
        async def pop(client: Client) -> bool:
            await client.brpop([QUEUE], timeout=most_s)
            return True

        until = asyncio.get_running_loop().time() + most_s
        answered = await self._redis.run(pop, otherwise=False, wait_s=most_s + LATE_S)
        if not answered:
            await self._local.wait(max(0.0, until - asyncio.get_running_loop().time()))
