"""Batches across requests: every result to its caller, budgets kept, questions first, nobody forgotten."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.base import InputTooLongError, ModelUnavailableError
from models.dynamic import DynamicBatcher

Batcher = DynamicBatcher[int, int]


class Device:
    """Doubles numbers, whose length is their value; keeps its batches, and can be held back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()

    def launch(self, batch: list[int]) -> Callable[[], list[int]]:
        self.free.wait()
        if 13 in batch:
            raise RuntimeError("an unlucky number")
        if 14 in batch:
            raise InputTooLongError("too long")
        self.batches.append(batch)
        return lambda: [2 * n for n in batch]


async def double(batcher: Batcher, numbers: list[int], *, urgent: bool = False) -> list[int]:
    return await batcher.run(numbers, numbers, urgent=urgent)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls=st.lists(st.tuples(st.lists(st.integers(20, 90), max_size=30), st.booleans()), max_size=8))
async def test_every_call_gets_its_results_within_the_budget(calls: list[tuple[list[int], bool]]) -> None:
    device = Device()
    batcher = Batcher("m", device.launch, budget_tokens=200)
    found = await asyncio.gather(*(double(batcher, numbers, urgent=urgent) for numbers, urgent in calls))
    assert found == [[2 * n for n in numbers] for numbers, _ in calls]
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 200 for batch in device.batches)
    assert sum(map(len, device.batches)) == sum(len(numbers) for numbers, _ in calls)
    await batcher.close()


async def test_calls_share_a_batch_and_questions_go_first() -> None:
    device = Device()
    batcher = Batcher("m", device.launch, budget_tokens=100)
    device.free.clear()
    first = asyncio.create_task(double(batcher, [50]))
    await asyncio.sleep(0.02)
    rest = [asyncio.create_task(double(batcher, [n])) for n in (20, 21, 22, 60)]
    question = asyncio.create_task(double(batcher, [7], urgent=True))
    await asyncio.sleep(0.02)
    device.free.set()
    await asyncio.gather(first, question, *rest)
    assert device.batches == [[50], [7], [60], [20, 21, 22]]
    await batcher.close()


async def test_the_oldest_is_not_forgotten_among_longer_ones() -> None:
    device = Device()
    batcher = Batcher("m", device.launch, budget_tokens=100)
    device.free.clear()
    await asyncio.sleep(0)
    short = asyncio.create_task(double(batcher, [20]))
    longer = asyncio.create_task(double(batcher, [100] * 40))
    await asyncio.sleep(0.02)
    device.free.set()
    await asyncio.gather(short, longer)
    assert [20] in device.batches[:9]
    await batcher.close()


async def test_a_cancelled_call_is_not_computed() -> None:
    device = Device()
    batcher = Batcher("m", device.launch, budget_tokens=50)
    device.free.clear()
    first = asyncio.create_task(double(batcher, [50]))
    await asyncio.sleep(0.02)
    cancelled = asyncio.create_task(double(batcher, [40, 41, 42]))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    device.free.set()
    assert await first == [100]
    assert await double(batcher, [30]) == [60]
    assert device.batches == [[50], [30]]
    await batcher.close()


async def test_a_failing_batch_fails_its_calls_alone() -> None:
    batcher = Batcher("m", Device().launch, budget_tokens=13)
    with pytest.raises(ModelUnavailableError, match="unlucky"):
        await double(batcher, [13])
    with pytest.raises(InputTooLongError):
        await double(batcher, [14])
    assert await double(batcher, [12]) == [24]
    await batcher.close()


async def test_closing_fails_what_waits() -> None:
    device = Device()
    batcher = Batcher("m", device.launch, budget_tokens=50)
    device.free.clear()
    first = asyncio.create_task(double(batcher, [50]))
    await asyncio.sleep(0.02)
    waiting = asyncio.create_task(double(batcher, [40]))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.02)
    device.free.set()
    assert await first == [100]
    with pytest.raises(ModelUnavailableError, match="closed"):
        await waiting
    await closing
    for numbers in ([1], []):
        with pytest.raises(ModelUnavailableError, match="closed"):
            await double(batcher, numbers)
