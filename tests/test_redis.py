"""A Redis that is not there: callers go on at once, it is tried now and then, and told of once a minute."""

import logging
import time

import pytest
from redis.asyncio import Redis as Client

from server.base import InvalidRequestError
from server.redis import FAILURES, Redis
from server.redis_cache import RedisCache
from server.redis_rates import RedisRates
from tests.live.servers import free_port


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def ping(client: Client) -> bool:
    return bool(await client.ping())


async def test_one_that_refuses_is_left_alone_then_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    redis = Redis(f"redis://127.0.0.1:{free_port()}/0", timeout_s=5, clock=clock)
    for _ in range(FAILURES):
        assert await redis.run(ping, otherwise=False) is False
    began = time.monotonic()
    for _ in range(100):
        assert await redis.run(ping, otherwise=False) is False
    assert time.monotonic() - began < 1
    assert redis.counts == {"error": FAILURES, "skipped": 100}
    tried = []
    for _ in range(120):
        clock.now += 1
        await redis.run(ping, otherwise=False)
        tried.append(redis.counts["error"])
    assert tried[-1] - FAILURES == pytest.approx(7, abs=1)  # after 1, 2, 4, 8, 16, 30, 30 s
    warnings = [record for record in caplog.records if record.name == "refdesk.redis"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * len(warnings)
    assert 2 <= len(warnings) <= 4
    await redis.close()


async def test_without_redis_rates_and_cache_are_those_of_the_process() -> None:
    redis = Redis(f"redis://127.0.0.1:{free_port()}/0")
    rates = RedisRates(redis)
    assert [await rates.take("k", 6) for _ in range(2)] == [0.0, pytest.approx(10, abs=0.5)]
    cache = RedisCache[bytes](redis, 60, encode=bytes, decode=bytes)
    cache.put("k", b"value")
    assert await cache.get("k") is None
    await cache.close()
    await redis.close()


@pytest.mark.parametrize("url", ["http://user:secret@host", "host:6379", "redis://"])
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="redis://host:6379/0") as caught:
        Redis(url)
    assert "secret" not in str(caught.value)
