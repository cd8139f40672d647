"""Rerank by late interaction over the token vectors that the embedding pass made anyway: no weights of its own.

MaxSim of ColBERT (Khattab & Zaharia 2020, arXiv:2004.12832): for each token of the question the largest similarity
with any token of the passage, summed. The passage's tokens are sign vectors, one bit a dimension.
"""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models.base import Candidate, Float32, ModelUnavailableError, QueryEmbedding, RerankerInfo, UInt8

# Passage tokens unpacked at once: 1.5 MB of float32 at 384 dimensions, which stays in the cache. Products this small
# want one BLAS thread (server/__init__.py sees to it): with two on a busy machine the barrier costs 30 times the work.
_BLOCK_TOKENS = 1024


class LateInteractionReranker:
    """Implements Reranker over packed token vectors of the embedder whose fingerprint it is given."""

    def __init__(self, embedder_fingerprint: str) -> None:
        self.info = RerankerInfo("late-interaction", f"maxsim-1:{embedder_fingerprint}", "token_bits")
        self._threads = ThreadPoolExecutor(2, "late-interaction")
        self._closed = False

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """`max_sim` of each candidate. Raises ModelUnavailableError without token vectors, or once closed."""
        if self._closed:
            raise ModelUnavailableError("The late-interaction reranker was closed; make a new one.")
        if embedding is None or embedding.token_vectors is None:
            raise ModelUnavailableError("The question has no token vectors: late interaction needs its embedding.")
        bits = [candidate.token_bits for candidate in candidates if candidate.token_bits is not None]
        if missing := len(candidates) - len(bits):
            raise ModelUnavailableError(
                f"{missing} of {len(candidates)} candidates have no token vectors. Ingest their documents again."
            )
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, max_sim, embedding.token_vectors, bits)

    async def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False)


def max_sim(question: Float32, passages: Sequence[UInt8]) -> Float32:
    """Σ over the question's tokens of max over a passage's tokens of their cosine, divided by the former's number.

    `question` (tokens, dimension), rows of unit length; `passages`: each (tokens, dimension / 8), packed signs, which
    stand for components of ±1, so vectors of length √dimension. Scores (passages,) float32 in [-1, 1], comparable
    between questions. A passage, or a question, without tokens scores -1.
    """
    scores = np.full(len(passages), -1.0, np.float32)
    if not len(question):
        return scores
    total = question.sum(axis=1, keepdims=True)
    for block in _blocks([len(one) for one in passages]):
        bits = np.unpackbits(np.concatenate([passages[i] for i in block]), axis=1).astype(np.float32)
        # q · (2b - 1) = 2 q · b - Σq: the 0/1 bits need no pass of their own to become signs
        similarities = 2 * (question @ bits.T) - total
        starts = np.cumsum([0, *(len(passages[i]) for i in block[:-1])])
        scores[block] = np.maximum.reduceat(similarities, starts, axis=1).mean(axis=0)
        scores[block] /= np.float32(np.sqrt(question.shape[1]))
    return scores


def _blocks(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the passages that have tokens, in runs of about _BLOCK_TOKENS together."""
    block: list[int] = []
    tokens = 0
    for i, length in enumerate(lengths):
        if length:
            block.append(i)
            tokens += length
        if tokens >= _BLOCK_TOKENS:
            yield block
            block, tokens = [], 0
    if block:
        yield block
