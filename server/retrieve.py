"""The two legs over one or more namespaces, side by side, each with a deadline; one that fails leaves the other."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from indexers.base import Hit, Index, IndexerError, IndexUnavailableError, View
from models.base import QueryEmbedding
from server.base import NamespaceState
from server.telemetry import Trace


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
    """A normalised question and its embedding; `embedding` None leaves the dense leg out."""

    text: str
    embedding: QueryEmbedding | None


async def retrieve(
    index: Index,
    question: Question,
    views: Sequence[tuple[NamespaceState, View]],
    *,
    top_k: int,
    timeout_s: float,
    trace: Trace,
) -> Retrieved:
    """Ask every leg of every namespace at once.

    Raises IndexUnavailableError only if no leg of any namespace answered.
    """

    async def ask(name: str, state: NamespaceState, search: Coroutine[Any, Any, list[Hit]]) -> Leg | str:
        if state.commit == 0:  # nothing was ever committed: the index need not know of it yet
            search.close()
            return Leg(name, state.namespace.name, ())
        try:
            with trace.span(name, outside=True):
                async with asyncio.timeout(timeout_s):
                    return Leg(name, state.namespace.name, tuple(await search))
        except IndexerError as exc:
            return f"{name} leg of {state.namespace}: {exc}"
        except TimeoutError:
            return f"{name} leg of {state.namespace}: no answer within {timeout_s:g} s"

    asked = []
    for state, view in views:
        if question.embedding is not None:
            dense = index.search_dense(state.namespace, question.embedding.vector, view, top_k)
            asked.append(ask("dense", state, dense))
        asked.append(ask("bm25", state, index.search_text(state.namespace, question.text, view, top_k)))
    answers = await asyncio.gather(*asked)
    legs = tuple(answer for answer in answers if isinstance(answer, Leg))
    failures = tuple(answer for answer in answers if isinstance(answer, str))
    if not legs:
        raise IndexUnavailableError(f"no leg answered: {'; '.join(failures)}")
    return Retrieved(legs, failures)
