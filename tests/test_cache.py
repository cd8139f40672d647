"""The in-memory cache: bounded, timed, one computation for equal questions, none for callers that all left."""

import asyncio

import pytest

from server.cache import Cache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_value_is_computed_once_and_expires() -> None:
    clock, calls = Clock(), 0

    async def compute() -> int:
        nonlocal calls
        calls += 1
        return calls

    cache: Cache[int] = Cache(10, ttl_s=5, clock=clock)
    assert await cache.get("k", compute) == (1, False)
    assert await cache.get("k", compute) == (1, True)
    clock.now = 5.1
    assert await cache.get("k", compute) == (2, False)


async def test_the_least_recently_used_goes_first() -> None:
    async def compute() -> str:
        return "new"

    async def fail() -> str:
        raise AssertionError("was there")

    cache: Cache[str] = Cache(2, ttl_s=5)
    await cache.get("a", compute)
    await cache.get("b", compute)
    await cache.get("a", fail)
    await cache.get("c", compute)
    assert len(cache) == 2
    await cache.get("a", fail)
    assert (await cache.get("b", compute))[1] is False


async def test_equal_questions_share_one_computation() -> None:
    started, gate = 0, asyncio.Event()

    async def compute() -> int:
        nonlocal started
        started += 1
        await gate.wait()
        return 7

    cache: Cache[int] = Cache(10, ttl_s=5)
    waiting = [asyncio.create_task(cache.get("k", compute)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert started == 1
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [(7, False)] * 4


async def test_work_nobody_waits_for_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def compute() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 0

    cache: Cache[int] = Cache(10, ttl_s=5)
    waiting = asyncio.create_task(cache.get("k", compute))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait_for(cancelled.wait(), 1)
    assert len(cache) == 0


async def test_failures_and_values_not_to_keep_are_not_stored() -> None:
    async def fail() -> int:
        raise ValueError("no")

    async def compute() -> int:
        return 1

    cache: Cache[int] = Cache(10, ttl_s=5)
    with pytest.raises(ValueError, match="no"):
        await cache.get("k", fail)
    await cache.get("k", compute, keep=lambda value: value != 1)
    assert len(cache) == 0
    assert await cache.get("k", compute) == (1, False)
