"""What embedding and reranking over HTTP work with, in a desk and in a model node alike: the models, and their sums."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.base import Candidate, Embedder, Float32, Passage, Reranker
from server.base import NotFoundError
from server.catalog import Catalog
from server.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Inference:
    """The models that an app serves; `catalog` None: a model node, which knows no collections."""

    embedder: Embedder
    reranker: Reranker | None
    metrics: Metrics
    catalog: Catalog | None = None

    def require_reranker(self) -> Reranker:
        """Raises NotFoundError where reranking is off."""
        if self.reranker is None:
            raise NotFoundError("no reranker runs here: start refdesk with reranker= a cross-encoder's name or folder")
        return self.reranker


async def tokenised(embedder: Embedder, texts: Sequence[str]) -> list[Passage]:
    """The texts as passages with their token ids."""
    tokens = await asyncio.to_thread(embedder.tokenizer.encode_batch, texts)
    return [Passage(text, one.ids) for text, one in zip(texts, tokens, strict=True)]


async def relevance(inference: Inference, query: str, passages: Sequence[Passage], *, raw: bool = False) -> list[float]:
    """How relevant each passage is to the question: a probability where the reranker gives logits (unless `raw`).

    A reranker by late interaction reads token vectors, which are made here, of what of a text the model takes.
    """
    reranker, embedder = inference.require_reranker(), inference.embedder
    if reranker.info.reads == "text":
        candidates = [Candidate(passage.text) for passage in passages]
        scores = await reranker.rerank(query, None, candidates)
    else:
        room = embedder.info.max_tokens - embedder.info.special_tokens
        cut = [Passage("", p.token_ids[:room]) for p in passages if p.token_ids is not None]
        (question,), embedded = await asyncio.gather(
            embedder.embed_queries([query]), embedder.embed_passages(cut, urgent=True)
        )
        candidates = [Candidate(p.text, e.token_bits) for p, e in zip(passages, embedded, strict=True)]
        scores = await reranker.rerank(query, question, candidates)
    if reranker.info.scores == "logit" and not raw:
        scores = _logistic(scores)
    return [float(score) for score in scores]


def _logistic(logits: Float32) -> Float32:
    """1 / (1 + e^-x), in double precision, so that good candidates keep their order."""
    return np.asarray(1.0 / (1.0 + np.exp(-logits.astype(np.float64))))
