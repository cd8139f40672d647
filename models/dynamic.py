"""Batches across requests: whatever waits is computed together, sequences of about one length at a time.

One thread owns the device. Questions go before passages; among passages the longest goes first with its neighbours in
length, and every so often the oldest, so that none waits for ever. One batch is prepared while another computes.
"""

import asyncio
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from models.base import ModelError, ModelUnavailableError

S = TypeVar("S")
R = TypeVar("R")
Finish = Callable[[], Sequence[R]]  # waits for a batch's results
OLDEST_EVERY = 8  # batches


class _Call(Generic[R]):
    """What one request still waits for."""

    def __init__(self, count: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.results: list[R | None] = [None] * count
        self.left = count
        self.is_over = False

    def end(self, error: Exception | None = None) -> None:
        if not self.is_over:
            self.is_over = True
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._resolve, error)

    def _resolve(self, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class _Item(Generic[S, R]):
    """One sequence of a call."""

    __slots__ = ("call", "index", "length", "number", "sequence", "taken")

    def __init__(self, call: _Call[R], index: int, sequence: S, length: int, number: int) -> None:
        self.call, self.index, self.sequence = call, index, sequence
        self.length, self.number, self.taken = length, number, False

    def __lt__(self, other: "_Item[S, R]") -> bool:
        return (self.length, -self.number) < (other.length, -other.number)


class DynamicBatcher(Generic[S, R]):
    """`launch` starts computing a batch and returns what waits for its results; both run in the batcher's thread.

    `budget_tokens` bounds a batch's size × longest; a single longer sequence is a batch of its own.
    """

    def __init__(self, name: str, launch: Callable[[list[S]], Finish[R]], *, budget_tokens: int) -> None:
        self._name, self._launch, self._budget = name, launch, budget_tokens
        self._changed = threading.Condition()
        self._urgent: deque[_Item[S, R]] = deque()
        self._by_length: list[_Item[S, R]] = []
        self._by_age: deque[_Item[S, R]] = deque()
        self._numbers = self._batches = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"batches-{name}", daemon=True)
        self._thread.start()

    async def run(self, sequences: Sequence[S], lengths: Sequence[int], *, urgent: bool = False) -> list[R]:
        """The results, in order. A cancelled call's sequences are not computed any more.

        Raises ModelUnavailableError once closed; whatever `launch` raises.
        """
        if not sequences:
            self._check_open()
            return []
        call: _Call[R] = _Call(len(sequences))
        with self._changed:
            self._check_open()
            for index, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
                self._numbers += 1
                item = _Item(call, index, sequence, max(1, length), self._numbers)
                if urgent:
                    self._urgent.append(item)
                else:
                    insort(self._by_length, item)
                    self._by_age.append(item)
            self._changed.notify()
        try:
            await call.future
        finally:
            call.is_over = True
        return [result for result in call.results if result is not None]

    async def close(self) -> None:
        """Refuse new work, fail what waits, and let the batch that computes end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _check_open(self) -> None:
        if self._closed:
            raise ModelUnavailableError(f"Model {self._name!r} was closed; load it again.")

    # --- the batcher's thread --------------------------------------------------------------------------------------

    def _work(self) -> None:
        under_way: tuple[list[_Item[S, R]], Finish[R]] | None = None
        while True:
            with self._changed:
                while not (self._closed or self._urgent or self._by_length or under_way):
                    self._changed.wait()
                batch = [] if self._closed else self._next_batch()
                if self._closed and under_way is None:
                    break
            launched = self._start(batch)
            if under_way is not None:
                self._finish(*under_way)
            under_way = launched
        for item in (*self._urgent, *self._by_length):
            item.call.end(ModelUnavailableError(f"Model {self._name!r} was closed while it worked."))

    def _start(self, batch: "list[_Item[S, R]]") -> "tuple[list[_Item[S, R]], Finish[R]] | None":
        if not batch:
            return None
        try:
            return batch, self._launch([item.sequence for item in batch])
        except Exception as exc:
            self._fail(batch, exc)
            return None

    def _finish(self, batch: "list[_Item[S, R]]", finish: Finish[R]) -> None:
        try:
            results = finish()
        except Exception as exc:
            self._fail(batch, exc)
            return
        for item, result in zip(batch, results, strict=True):
            item.call.results[item.index] = result
            item.call.left -= 1
            if not item.call.left:
                item.call.end()

    def _fail(self, batch: "list[_Item[S, R]]", error: Exception) -> None:
        known = error if isinstance(error, ModelError) else None
        for item in batch:
            item.call.end(known or ModelUnavailableError(f"Model {self._name!r} failed: {error}. Retry."))

    def _next_batch(self) -> "list[_Item[S, R]]":
        batch: list[_Item[S, R]] = []
        longest = 0
        while self._urgent:
            longest = max(longest, self._urgent[0].length)
            if batch and longest * (len(batch) + 1) > self._budget:
                break
            item = self._urgent.popleft()
            if not item.call.is_over:
                batch.append(item)
        return batch or self._next_passages()

    def _next_passages(self) -> "list[_Item[S, R]]":
        """A run of neighbours in length around the longest or, every OLDEST_EVERY batches, around the oldest."""
        while self._by_age and (self._by_age[0].taken or self._by_age[0].call.is_over):
            self._by_age.popleft()
        self._by_length = [item for item in self._by_length if not item.call.is_over]
        if not self._by_length:
            return []
        self._batches += 1
        at = len(self._by_length) - 1
        if self._batches % OLDEST_EVERY == 0:
            at = self._by_length.index(self._by_age[0])
        start, end = self._window(at)
        batch = self._by_length[start:end]
        del self._by_length[start:end]
        for item in batch:
            item.taken = True
        return batch

    def _window(self, at: int) -> tuple[int, int]:
        """[start, end) of the largest run about `at` within the budget, nearest lengths first."""
        items, start, end = self._by_length, at, at + 1
        while True:
            below = items[at].length - items[start - 1].length if start else None
            above = items[end].length - items[at].length if end < len(items) else None
            if above is not None and items[end].length * (end - start + 1) > self._budget:
                above = None
            if below is not None and items[end - 1].length * (end - start + 1) > self._budget:
                below = None
            if below is not None and (above is None or below <= above):
                start -= 1
            elif above is not None:
                end += 1
            else:
                return start, end
