"""Rates: a burst, then evenly; never more than that in any stretch of time, and a refused request costs nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rates import MAX_KEYS, LocalRates, interval_and_tolerance


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_by_hand() -> None:
    assert interval_and_tolerance(60) == (1.0, 9.0)  # ten at once
    assert interval_and_tolerance(6) == (10.0, 0.0)  # one at a time
    assert interval_and_tolerance(1) == (60.0, 0.0)
    assert interval_and_tolerance(600) == pytest.approx((0.1, 9.9))


async def test_a_burst_then_evenly() -> None:
    clock = Clock()
    rates = LocalRates(clock)
    assert [await rates.take("k", 60) for _ in range(10)] == [0.0] * 10
    assert await rates.take("k", 60) == pytest.approx(1.0)
    assert await rates.take("other", 60) == 0.0
    clock.now += 0.4
    assert await rates.take("k", 60) == pytest.approx(0.6)
    clock.now += 0.6
    assert await rates.take("k", 60) == 0.0
    assert await rates.take("k", 60) == pytest.approx(1.0)
    clock.now += 3600
    assert [await rates.take("k", 60) for _ in range(11)] == [0.0] * 10 + [pytest.approx(1.0)]


@given(st.floats(0.5, 5000), st.lists(st.floats(0, 30), min_size=1, max_size=60))
async def test_no_stretch_of_time_sees_more(per_minute: float, pauses: list[float]) -> None:
    clock = Clock()
    rates = LocalRates(clock)
    passed: list[float] = []
    for pause in pauses:
        clock.now += pause
        wait = await rates.take("k", per_minute)
        if wait:
            clock.now += wait
            assert await rates.take("k", per_minute) == 0.0, "it may come when it was told to"
        passed.append(clock.now)
    burst = max(1.0, per_minute / 6)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            allowed = burst + (passed[last] - start) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-3


async def test_the_memory_is_bounded() -> None:
    clock = Clock()
    rates = LocalRates(clock)
    for number in range(MAX_KEYS + 10):
        clock.now += 0.01
        await rates.take(str(number), 60)
    assert len(rates._due) <= 200
