"""Two legs at work: questions and commits without a pause, and what either leg was seen to hold at each commit."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from indexers.base import IndexUnavailableError, View
from indexers.legs import Leg
from models.base import QueryEmbedding
from server.retrieve import Question, Retrieved, retrieve
from server.telemetry import Trace
from tests.commit_bench import Bench
from tests.corpus import embed, prepare

TIMEOUT_S = 1.0  # of a leg
LATE_S = 10.0  # the machine may be busy; what matters is that a deadline is kept, not to the millisecond
SETTLED_S = 90.0
Ids = frozenset[str]


async def ask(bench: Bench, words: str = "title", timeout_s: float = TIMEOUT_S) -> Retrieved:
    """Every chunk's context has the word, and every chunk is among the nearest: each leg gives all that it holds."""
    embedded = embed(words)
    state = await bench.catalog.namespace("docs", "default")
    question = Question(words, QueryEmbedding(embedded.vector, None, 1))
    return await retrieve(
        bench.index, question, [(state, View(state.commit))], top_k=1000, timeout_s=timeout_s, trace=Trace()
    )


def found(result: Retrieved, leg: str) -> Ids | None:
    """The ids that a leg found, or None if it did not answer."""
    return next((frozenset(hit.id for hit in each.hits) for each in result.legs if each.name == leg), None)


async def both_answer(bench: Bench) -> Ids:
    """Ask until both legs answer; they find the same ids."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        said: object
        try:
            result = await ask(bench, timeout_s=LATE_S)
            if not result.degraded:
                dense, text = found(result, "dense"), found(result, "bm25")
                assert dense is not None
                assert dense == text
                return dense
            said = result.degraded
        except IndexUnavailableError as exc:
            said = exc
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.1)


async def all_ids(leg: Leg, bench: Bench, commit: int) -> Ids:
    page, after = await leg.scan(bench.state.namespace, View(commit), None, 10_000)
    assert after is None
    return frozenset(stored.point.id for stored in page)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLED_S):
        while not is_so():  # noqa: ASYNC110 (any of several tasks may make it so)
            await asyncio.sleep(0.05)


@dataclass
class Work:
    """`sound` is a leg that stays well: what it holds at a commit is what was committed."""

    bench: Bench
    sound: Leg
    committed: dict[int, Ids] = field(default_factory=lambda: {0: frozenset()})
    failures: list[IndexUnavailableError] = field(default_factory=list)  # of commits
    degraded: set[str] = field(default_factory=set)  # what searches said of a leg that did not answer
    _seen: defaultdict[tuple[int, str], set[Ids]] = field(default_factory=lambda: defaultdict(set))
    _is_over: bool = False

    @property
    def newest(self) -> int:
        return max(self.committed)

    @property
    def legs_seen(self) -> set[str]:
        return {leg for _, leg in self._seen}

    async def goes_on(self, commits: int = 3) -> None:
        """Wait until both legs answer and so many further commits have succeeded."""
        await both_answer(self.bench)
        wanted = self.newest + commits
        await until(lambda: self.newest >= wanted)

    @asynccontextmanager
    async def going_on(self, readers: int = 2) -> AsyncIterator[None]:
        """Work in the background. At the end: whatever either leg answered at a commit was all of that commit, and
        every commit that returned is there."""
        tasks = [asyncio.create_task(self._write()), *(asyncio.create_task(self._read()) for _ in range(readers))]
        try:
            yield
        finally:
            self._is_over = True
            await asyncio.gather(*tasks)
        for (commit, leg), answers in self._seen.items():
            assert answers == {self.committed[commit]}, (commit, leg)
        assert await both_answer(self.bench) == self.committed[self.newest]

    async def _read(self) -> None:
        while not self._is_over:
            before = (await self.bench.catalog.namespace("docs", "default")).commit
            result = await ask(self.bench)
            self.degraded.update(result.degraded)
            if (await self.bench.catalog.namespace("docs", "default")).commit == before:
                for leg in result.legs:
                    self._seen[before, leg.name].add(frozenset(hit.id for hit in leg.hits))
            await asyncio.sleep(0.01)

    async def _write(self) -> None:
        number = 0
        while not self._is_over:
            number += 1
            document = prepare(f"{number % 7}.txt", f"text {number} " * (1 + number % 30))
            while True:
                try:
                    commit = await self.bench.commit(document)
                    break
                except IndexUnavailableError as exc:
                    self.failures.append(exc)
                    await asyncio.sleep(0.1)
            self.committed[commit] = await all_ids(self.sound, self.bench, commit)
            await asyncio.sleep(0.02)
