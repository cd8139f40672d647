"""Rates that hold among processes, in Redis; while it does not answer each process keeps its own."""

from redis.asyncio import Redis as Client

from server.rates import GCRA, LocalRates, interval_and_tolerance
from server.redis import Redis

PREFIX = "refdesk:rate:"


class RedisRates:
    def __init__(self, redis: Redis) -> None:
        self._redis, self._local = redis, LocalRates()

    async def take(self, key_id: str, per_minute: float) -> float:
        interval, tolerance = interval_and_tolerance(per_minute)

        async def count(client: Client) -> float | None:
            answer = await client.eval(GCRA, 1, PREFIX + key_id, repr(interval), repr(tolerance))
            return float(answer)

        wait = await self._redis.run(count, None)
        return await self._local.take(key_id, per_minute) if wait is None else wait
