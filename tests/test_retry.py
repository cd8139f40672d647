"""When a request is repeated, how long is waited, and that an outage is not multiplied."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexers.retry import Backoff, Budget, Retries, wait_of_status

QUICK = Backoff(base_s=0.001)


class Refused(Exception):
    pass


def failing(times: int) -> tuple[Callable[[], Awaitable[str]], list[float]]:
    """A request that fails so many times before it succeeds, and when it was made."""
    made: list[float] = []

    async def request() -> str:
        made.append(time.monotonic())
        if len(made) <= times:
            raise Refused(str(len(made)))
        return "done"

    return request, made


def at_once(_: Exception) -> float:
    return 0.0


@pytest.mark.parametrize("failures", [0, 1, 4])
async def test_a_request_is_tried_five_times(failures: int) -> None:
    request, made = failing(failures)
    assert await Retries(QUICK).run(request, at_once) == "done"
    assert len(made) == failures + 1


async def test_the_last_error_is_raised() -> None:
    request, made = failing(9)
    with pytest.raises(Refused, match="5"):
        await Retries(QUICK).run(request, at_once)
    assert len(made) == 5


async def test_what_repeating_cannot_help_is_raised_at_once() -> None:
    for wait_s in (None, 3600.0):
        request, made = failing(9)
        with pytest.raises(Refused, match="1"):
            await Retries(QUICK).run(request, lambda _, wait_s=wait_s: wait_s)  # type: ignore[misc]
        assert len(made) == 1


async def test_the_server_is_given_the_time_it_asks_for() -> None:
    request, made = failing(1)
    await Retries(QUICK).run(request, lambda _: 0.05)
    assert made[1] - made[0] >= 0.05


async def test_an_outage_is_met_with_a_tenth_more_requests_at_most() -> None:
    retries = Retries(Backoff(base_s=0), Budget(reserve=20))
    tried = 0
    for _ in range(1000):
        request, made = failing(9)
        with pytest.raises(Refused):
            await retries.run(request, at_once)
        tried += len(made)
    assert 1000 + 100 <= tried <= 1000 + 100 + 20


def test_waits_double_up_to_the_most() -> None:
    assert [Backoff().ceiling_s(n) for n in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]


@given(st.integers(100, 599))
def test_only_passing_failures_are_repeated(status: int) -> None:
    assert (wait_of_status(status, None) is not None) == (status in (408, 429) or status >= 500)


def test_retry_after_is_seconds_or_a_date() -> None:
    later, before = (format_datetime(datetime.now(UTC) + timedelta(seconds=s), usegmt=True) for s in (30, -30))
    assert wait_of_status(503, "7") == 7.0
    assert wait_of_status(429, later) == pytest.approx(30, abs=2)
    assert [wait_of_status(503, odd) for odd in (before, "-3", "soon", "")] == [0.0] * 4
