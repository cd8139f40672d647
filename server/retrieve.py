"""The two legs over one or more namespaces, side by side, each with a deadline; one that fails leaves the other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from indexers.base import Hit, Index, IndexerError, IndexUnavailableError, View
from models.base import ModelError, QueryEmbedding
from server.base import NamespaceState
from server.telemetry import Trace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg's ranking of one namespace."""

    name: str  # "dense" or "bm25"
    namespace: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Retrieved:
    legs: tuple[Leg, ...]
    degraded: tuple[str, ...]  # one line for each leg that did not answer

    def best(self, name: str) -> float:
        """The highest score that a leg gave in any namespace; 0 if it found nothing."""
        return max((leg.hits[0].score for leg in self.legs if leg.name == name and leg.hits), default=0.0)


@dataclass(frozen=True, slots=True)
class Question:
    """A normalised question and its embedding, or the task that makes it, for which BM25 does not wait."""

    text: str
    embedding: "QueryEmbedding | asyncio.Future[QueryEmbedding]"

    async def embedded(self) -> QueryEmbedding:
        """Raises ModelError if the task failed. Whoever stops waiting leaves it to the others."""
        return await asyncio.shield(self.embedding) if isinstance(self.embedding, asyncio.Future) else self.embedding


async def in_time(what: str, timeout_s: float, answer: Awaitable[T]) -> T:
    """The index's answer. Raises IndexUnavailableError, naming what was asked, if it fails or is not there in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    except IndexerError as exc:
        raise IndexUnavailableError(f"{what}: {exc}") from exc
    except TimeoutError:
        raise IndexUnavailableError(f"{what}: no answer within {timeout_s:g} s") from None


async def retrieve(
    index: Index,
    question: Question,
    views: Sequence[tuple[NamespaceState, View]],
    *,
    top_k: int,
    timeout_s: float,
    trace: Trace,
) -> Retrieved:
    """Ask every leg of every namespace at once, dense legs as soon as the question is embedded, which is in their time.

    Raises IndexUnavailableError only if no leg of any namespace answered.
    """

    async def ask(name: str, state: NamespaceState, search: Callable[[], Awaitable[list[Hit]]]) -> Leg | str:
        if state.commit == 0:  # nothing was ever committed: the index need not know of it yet
            return Leg(name, state.namespace.name, ())
        try:
            hits = await in_time(f"{name} leg of {state.namespace}", timeout_s, search())
        except IndexUnavailableError as exc:
            return str(exc)
        except ModelError as exc:
            return f"embedding: {exc}"
        return Leg(name, state.namespace.name, tuple(hits))

    async def ask_dense(state: NamespaceState, view: View) -> Leg | str:
        async def search() -> list[Hit]:
            vector = (await question.embedded()).vector  # in the leg's time
            with trace.span("dense", outside=True):
                return await index.search_dense(state.namespace, vector, view, top_k)

        return await ask("dense", state, search)

    async def ask_text(state: NamespaceState, view: View) -> Leg | str:
        async def search() -> list[Hit]:
            with trace.span("bm25", outside=True):
                return await index.search_text(state.namespace, question.text, view, top_k)

        await asyncio.sleep(0)  # so that the question is on its way to its model before an engine keeps the interpreter
        return await ask("bm25", state, search)

    answers = await asyncio.gather(*(leg(state, view) for leg in (ask_text, ask_dense) for state, view in views))
    legs = tuple(answer for answer in answers if isinstance(answer, Leg))
    failures = tuple(dict.fromkeys(answer for answer in answers if isinstance(answer, str)))
    if not legs:
        raise IndexUnavailableError(f"no leg answered: {'; '.join(failures)}")
    return Retrieved(legs, failures)
