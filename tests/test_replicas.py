"""Backoff, retry budget and replicas: worked by hand, and their invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.replicas import EJECT_AFTER, EJECT_MAX_S, EJECT_S, Replicas
from models.retry import Backoff, RetryBudget, is_retryable, parse_retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(replicas: Replicas, times: int = 1) -> None:
    for _ in range(times):
        replica = replicas.pick()
        assert replica
        replicas.release(replica, failed=True)


def test_the_delay_doubles_to_ten_seconds() -> None:
    assert [Backoff().delay_s(n, 1.0) for n in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    assert Backoff().delay_s(3, 0.5) == 0.4
    assert Backoff().delay_s(1, 0.5, retry_after_s=7) == 7


@given(st.integers(1, 50), st.floats(0, 1), st.none() | st.floats(0, 100))
def test_a_delay_is_bounded(failures: int, chance: float, retry_after: float | None) -> None:
    delay = Backoff().delay_s(failures, chance, retry_after)
    assert (retry_after or 0) <= delay <= max(10, retry_after or 0)


@given(st.lists(st.booleans(), max_size=400))
def test_retries_are_a_tenth_of_requests_beyond_the_reserve(events: list[bool]) -> None:
    budget, requests, retries = RetryBudget(), 0, 0
    for is_request in events:
        if is_request:
            budget.request()
            requests += 1
        else:
            retries += budget.take()
    assert retries <= 10 + 0.1 * requests + 1e-9


@pytest.mark.parametrize(("status", "expected"), [(408, True), (429, True), (500, True), (503, True), (599, True)])
def test_retryable(status: int, expected: bool) -> None:
    assert is_retryable(status) is expected
    assert not any(map(is_retryable, (200, 400, 401, 404, 409, 422)))


def test_retry_after_in_seconds_or_as_a_date() -> None:
    assert parse_retry_after("7") == 7
    assert parse_retry_after("Mon, 23 Nov 2026 08:00:10 GMT", now=1795420800.0) == 10
    assert parse_retry_after("Mon, 23 Nov 2026 07:00:00 GMT", now=1795420800.0) == 0
    assert parse_retry_after(None) is parse_retry_after("soon") is parse_retry_after("-3") is None


def test_fewest_outstanding_then_least_recently_used() -> None:
    replicas = Replicas(["a", "b", "c"])
    first = [replicas.pick() for _ in range(4)]
    assert [replica.url for replica in first if replica] == ["a", "b", "c", "a"]
    assert first[1]
    replicas.release(first[1], failed=False)
    assert [replica.url for _ in range(2) if (replica := replicas.pick())] == ["b", "c"]


def test_another_replica_is_tried_first() -> None:
    replicas = Replicas(["a", "b"])
    a = replicas.pick()
    assert a
    replicas.release(a, failed=None)
    b = replicas.pick(tried=[a])
    assert b
    assert b.url == "b"
    assert replicas.pick(tried=[a, b]) is a


def test_ejection_half_open_and_return() -> None:
    clock = Clock()
    replicas = Replicas(["a"], clock)
    fail(replicas, EJECT_AFTER - 1)
    assert replicas.retry_in_s() == 0
    fail(replicas)
    assert replicas.pick() is None
    assert replicas.retry_in_s() == EJECT_S
    clock.now += EJECT_S
    probe = replicas.pick()
    assert probe
    assert replicas.pick() is None  # half open: one at a time
    replicas.release(probe, failed=True)
    assert replicas.retry_in_s() == 2 * EJECT_S
    clock.now += 2 * EJECT_S
    probe = replicas.pick()
    assert probe
    replicas.release(probe, failed=False)
    assert replicas.pick()
    assert replicas.pick()


def test_what_failed_while_ejected_counts_no_more() -> None:
    clock = Clock()
    replicas = Replicas(["a"], clock)
    under_way = [replica for _ in range(20) if (replica := replicas.pick())]
    for replica in under_way:
        replicas.release(replica, failed=True)
    assert replicas.retry_in_s() == EJECT_S


@given(st.lists(st.tuples(st.sampled_from("pofcw"), st.integers(0, 5)), max_size=80))
def test_whatever_happens_counts_stay_sane(events: list[tuple[str, int]]) -> None:
    """pick, release as fine, as failed or as the client's leaving, or let time pass."""
    clock = Clock()
    replicas = Replicas(["a", "b", "c"], clock)
    held = []
    for event, n in events:
        if event == "p" and (replica := replicas.pick()):
            held.append(replica)
        elif event == "w":
            clock.now += n
        elif held:
            replicas.release(held.pop(n % len(held)), failed={"o": False, "f": True}.get(event))
        assert sum(replica.outstanding for replica in replicas.all) == len(held)
        assert 0 <= replicas.retry_in_s() <= EJECT_MAX_S
    for replica in held:
        replicas.release(replica, failed=None)
    clock.now += EJECT_MAX_S
    assert replicas.pick()
