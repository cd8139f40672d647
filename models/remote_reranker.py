"""A reranker behind HTTP: /v1/rerank in the shape of Cohere and Jina (vLLM, a refdesk model node), or TEI's /rerank."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from models.base import Candidate, Float32, ModelError, QueryEmbedding, RerankerInfo
from models.remote import MalformedReplyError, Remote, Request, as_list, as_object

TIMEOUT_S = 5.0
_LEARN_TIMEOUT_S = 10.0
_BLANK = " "  # stands for an empty text, which some servers refuse


class RemoteReranker:
    """Implements Reranker. Use `connect`. One event loop uses it."""

    def __init__(self, remote: Remote, name: str, *, is_tei: bool) -> None:
        self._remote, self._is_tei = remote, is_tei
        self.info = RerankerInfo(name, sha256(f"remote-rerank:{name}".encode()).hexdigest(), "text")

    @classmethod
    async def connect(cls, remote: Remote, name: str) -> "RemoteReranker":
        """Find out which shape the server speaks: TEI tells by its /info; all others are taken to speak Cohere's."""
        try:
            info = await remote.json(Request("GET", "/info"), as_object, timeout_s=_LEARN_TIMEOUT_S)
        except ModelError:
            return cls(remote, name, is_tei=False)
        return cls(remote, name, is_tei="model_id" in info)

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """Relevance of each candidate by its text; what is too long is cut there. `embedding` is not read."""
        self._remote.http  # noqa: B018 - raises if closed
        if not candidates:
            return np.zeros(0, np.float32)
        texts = [candidate.text or _BLANK for candidate in candidates]
        return await self._remote.json(
            self._request(query, texts), lambda reply: self._scores(reply, len(texts)), timeout_s=TIMEOUT_S
        )

    async def close(self) -> None:
        await self._remote.close()

    def _request(self, query: str, texts: Sequence[str]) -> Request:
        if self._is_tei:
            return Request("POST", "/rerank", {"query": query, "texts": texts, "truncate": True})
        body = {"model": self.info.name, "query": query, "documents": texts, "top_n": len(texts)}
        return Request("POST", "/v1/rerank", body)

    def _scores(self, reply: object, count: int) -> Float32:
        listed = as_list(reply) if self._is_tei else as_list(as_object(reply).get("results"))
        scores = np.full(count, np.nan, np.float32)
        for one in map(as_object, listed):
            index, score = one.get("index"), one.get("score" if self._is_tei else "relevance_score")
            if not isinstance(index, int) or not isinstance(score, int | float) or not 0 <= index < count:
                raise MalformedReplyError(f"a result of a reranking that cannot be read: {one!r:.80}")
            scores[index] = score
        if np.isnan(scores).any():
            raise MalformedReplyError(f"{len(listed)} scores for {count} documents")
        return scores
