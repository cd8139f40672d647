"""The in-memory cache: bounded, timed, one computation for equal questions, none for callers that all left."""

import asyncio
from collections.abc import Hashable

import pytest

from server.cache import Cache
from server.rank import Ranked, Ranking
from server.redis_cache import digest


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
    assert await cache.get("k", compute) == (1, None)
    assert await cache.get("k", compute) == (1, "l1")
    clock.now = 5.1
    assert await cache.get("k", compute) == (2, None)


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
    assert (await cache.get("b", compute))[1] is None


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
    assert results[1:] == [(7, None)] * 4


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
    assert await cache.get("k", compute) == (1, None)


class Below(dict[Hashable, int]):
    """What several caches share."""

    async def get(self, key: Hashable) -> int | None:  # type: ignore[override]
        return super().get(key)

    def put(self, key: Hashable, value: int) -> None:
        self[key] = value


async def test_what_one_cache_computed_another_finds_beneath() -> None:
    below = Below()
    first, second = (Cache[int](10, ttl_s=5, beneath=below) for _ in range(2))

    async def compute() -> int:
        return 7

    async def fail() -> int:
        raise AssertionError("was there")

    assert await first.get("k", compute) == (7, None)
    assert await second.get("k", fail) == (7, "l2")
    assert await second.get("k", fail) == (7, "l1")
    await first.get("degraded", compute, keep=lambda _: False)
    assert set(below) == {"k"}


async def test_without_a_memory_of_its_own_a_cache_still_shares() -> None:
    cache: Cache[int] = Cache(0, ttl_s=5, beneath=Below(k=1))

    async def fail() -> int:
        raise AssertionError("was there")

    assert await cache.get("k", fail) == (1, "l2")
    assert len(cache) == 0


def test_a_ranking_comes_back_as_it_was() -> None:
    entries = (Ranked("chk_1", "default", 0.1 + 0.2, {"dense": 1, "bm25": 7}), Ranked("chk_2", "ä", 1e-300, {}))
    ranking = Ranking(entries, "late-interaction", (), 5, 0.7, 0.0)
    assert Ranking.decode(ranking.encode()) == ranking
    for data in (b"", b"[]", b"{}", b'{"entries": [{"id": 1}]}', ranking.encode().replace(b"score", b"scare")):
        with pytest.raises(ValueError, match=r"."):
            Ranking.decode(data)


def test_a_key_has_one_digest_in_every_process() -> None:
    groups = frozenset(f"group {n}" for n in range(50))
    key = ("docs", ((1, 2, 3.5),), groups, "question", None, ("f", "1"))
    again = ("docs", ((1, 2, 3.5),), frozenset(sorted(groups, reverse=True)), "question", None, ("f", "1"))
    assert digest(key) == digest(again) == "9977098aa68636492ad042997f035bfe310ad48a2ac47346153f1e3ac5379215"
    others = [(*key[:2], None, *key[3:]), (*key[:2], frozenset(), *key[3:]), ("docs", ((1, 2, 3.6),), *key[2:])]
    assert len({digest(key), *map(digest, others)}) == 4
