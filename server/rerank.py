"""Reranking the fused list: which candidates a reranker reads, how deep its time budget lets it go, who wins."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.base import Candidate, QueryEmbedding, Reranker
from server.base import StoredChunk


@dataclass(slots=True)
class Depth:
    """How many candidates fit into the budget, by the reranker's own measured speed (a moving average)."""

    budget_ms: float
    _ms_each: float | None = None

    def of(self, candidates: int, at_least: int) -> int:
        """Between `at_least` and `candidates`; all of them until a first measurement is there."""
        if self._ms_each is None:
            return candidates
        return max(min(at_least, candidates), min(candidates, int(self.budget_ms / self._ms_each)))

    def observe(self, candidates: int, elapsed_ms: float) -> None:
        each = max(elapsed_ms / max(candidates, 1), 1e-3)
        self._ms_each = each if self._ms_each is None else 0.8 * self._ms_each + 0.2 * each


@dataclass(slots=True)
class Reranking:
    """A reranker and its depth."""

    reranker: Reranker
    depth: Depth = field(default_factory=lambda: Depth(100.0))

    @property
    def reads_tokens(self) -> bool:
        return self.reranker.info.reads == "token_bits"

    async def order(
        self, question: str, embedding: QueryEmbedding | None, chunks: Sequence[StoredChunk], at_least: int
    ) -> list[tuple[str, float]]:
        """(chunk id, score), best first, ties to the smaller id; what lies beyond the depth is left out."""
        depth = len(chunks) if self.reads_tokens else self.depth.of(len(chunks), at_least)
        candidates = [Candidate(chunk.text, chunk.token_bits) for chunk in chunks[:depth]]
        started = time.perf_counter()
        scores = await self.reranker.rerank(question, embedding, candidates)
        self.depth.observe(depth, (time.perf_counter() - started) * 1e3)
        ranked = zip((chunk.id for chunk in chunks), (float(score) for score in scores), strict=False)
        return sorted(ranked, key=lambda item: (-item[1], item[0]))
