import asyncio
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import cpu
from server.share import BURST, GIVE_WAY_S, HELD_S, Share

MS = st.floats(0, 0.1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def one_client(share: Share, clock: Clock, searches: int, takes_s: float, pause_s: float = 0.0) -> Iterator[float]:
    """The time that each search's answer takes, of a client that asks again `pause_s` after it."""
    for _ in range(searches):
        began = clock.now
        ready = share.take(began)
        clock.now = max(began + takes_s, ready)
        yield clock.now - began
        clock.now += pause_s


def test_a_client_without_a_pause_is_held_once_its_burst_is_used_up() -> None:
    clock = Clock()
    took = list(one_client(Share(0.75, cores=2, clock=clock), clock, 200, takes_s=0.01))
    assert took[: BURST // 2] == pytest.approx([0.01] * (BURST // 2))
    assert took[-1] == pytest.approx(0.02)  # 10 ms of one core in 20: a quarter of two


@pytest.mark.parametrize(("cores", "pause_s"), [(2, 0.01), (2, 1.0), (16, 0.0)])
def test_one_that_pauses_or_has_cores_enough_is_never_held(cores: int, pause_s: float) -> None:
    clock = Clock()
    took = list(one_client(Share(0.75, cores, clock), clock, 100, takes_s=0.01, pause_s=pause_s))
    assert took == pytest.approx([0.01] * 100)


@given(st.lists(MS, min_size=1, max_size=200), st.floats(0.01, 0.99), st.integers(1, 64))
def test_no_answer_is_held_longer_than_that_and_none_of_a_burst(pauses: list[float], left: float, cores: int) -> None:
    clock = Clock()
    share = Share(left, cores, clock)
    for number, pause_s in enumerate(pauses):
        clock.now += pause_s
        held_s = share.take(clock.now) - clock.now
        assert held_s <= HELD_S + 1e-9
        if number == 0:
            assert held_s <= 0


def suspends(coroutine: Coroutine[object, None, None]) -> bool:
    """Whether it waits for anything; it is not run to its end then."""
    try:
        coroutine.send(None)
    except StopIteration:
        return False
    coroutine.close()
    return True


async def test_answers_are_held_only_beside_an_ingestion() -> None:
    share = Share(0.99, cores=1)
    assert not any(suspends(share.hold(time.monotonic())) for _ in range(3 * BURST))
    with share.ingesting():
        assert [suspends(share.hold(time.monotonic())) for _ in range(3 * BURST)][BURST:] == [True] * 2 * BURST
    assert not suspends(share.hold(time.monotonic()))


async def test_a_bulk_step_waits_until_no_search_computes() -> None:
    share = Share(0.0)
    assert not suspends(share.give_way())
    with share.computing():
        with share.computing():
            step = asyncio.create_task(share.give_way())
            await asyncio.sleep(0)
        assert suspends(share.give_way())
    await step
    assert not suspends(share.give_way())


async def test_a_bulk_step_waits_for_no_endless_search() -> None:
    share = Share(0.0)
    with share.computing():
        await asyncio.wait_for(share.give_way(), 100 * GIVE_WAY_S)


async def test_one_slow_search_holds_no_answers_of_a_client_that_pauses() -> None:
    clock = Clock()
    share = Share(0.75, cores=2, clock=clock)
    began, clock.now = clock.now, clock.now + 5.0
    await share.hold(began)
    assert list(one_client(share, clock, 50, takes_s=0.01, pause_s=0.19)) == pytest.approx([0.01] * 50)


@pytest.mark.parametrize(("quota", "expected"), [("max 100000\n", None), ("150000 100000\n", 2), ("10000 100000", 1)])
def test_cores_are_those_of_the_control_group(tmp_path: Path, quota: str, expected: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    usable = cpu.cores(tmp_path / "none")
    assert cpu.cores(file) == (usable if expected is None else min(usable, expected))
