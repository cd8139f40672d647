"""A reranker behind HTTP: /v1/rerank in the shape of Cohere and Jina (vLLM, a refdesk model node), or TEI's /rerank."""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

import numpy as np

from models.base import Candidate, Float32, ModelNotFoundError, ModelUnavailableError, QueryEmbedding, RerankerInfo
from models.remote import MalformedReplyError, Remote, Request, as_list, as_object, together
from models.tei import Tei

TIMEOUT_S = 5.0
_LEARN_TIMEOUT_S = 10.0
_BLANK = " "  # stands for an empty text, which some servers refuse


class RemoteReranker:
    """Implements Reranker. Use `connect`. One event loop uses it."""

    def __init__(self, remote: Remote, name: str) -> None:
        self._remote = remote
        self._is_known = False  # which shape the server speaks
        self._tei: Tei | None = None
        self.info = RerankerInfo(name, sha256(f"remote-rerank:{name}".encode()).hexdigest(), "text")

    @classmethod
    async def connect(cls, remote: Remote, name: str) -> "RemoteReranker":
        """A server that does not answer yet is asked which shape it speaks when it is needed."""
        reranker = cls(remote, name)
        with suppress(ModelUnavailableError):
            await reranker._learn(_LEARN_TIMEOUT_S)
        return reranker

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """Relevance of each candidate by its text; what is too long is cut there. `embedding` is not read."""
        self._remote.http  # noqa: B018 - raises if closed
        if not candidates:
            return np.zeros(0, np.float32)
        if not self._is_known:
            await self._learn(TIMEOUT_S)
        texts = [candidate.text or _BLANK for candidate in candidates]
        size = self._tei.max_inputs if self._tei else len(texts)
        parts = [texts[at : at + size] for at in range(0, len(texts), size)]
        try:
            return np.concatenate(await together([self._score(query, part) for part in parts]))
        except ModelNotFoundError:  # a gateway may have answered while the server behind it started
            self._is_known = False
            raise

    async def close(self) -> None:
        await self._remote.close()

    async def _learn(self, timeout_s: float) -> None:
        """TEI tells by its /info; all others are taken to speak Cohere's shape. Raises ModelUnavailableError."""
        self._tei = await Tei.ask(self._remote, timeout_s=timeout_s)
        self._is_known = True

    async def _score(self, query: str, texts: Sequence[str]) -> Float32:
        return await self._remote.json(
            self._request(query, texts), lambda reply: self._scores(reply, len(texts)), timeout_s=TIMEOUT_S
        )

    def _request(self, query: str, texts: Sequence[str]) -> Request:
        if self._tei:
            return Request("POST", "/rerank", {"query": query, "texts": texts, "truncate": True})
        body = {"model": self.info.name, "query": query, "documents": texts, "top_n": len(texts)}
        return Request("POST", "/v1/rerank", body)

    def _scores(self, reply: object, count: int) -> Float32:
        listed = as_list(reply) if self._tei else as_list(as_object(reply).get("results"))
        scores = np.full(count, np.nan, np.float32)
        for one in map(as_object, listed):
            index, score = one.get("index"), one.get("score" if self._tei else "relevance_score")
            if not isinstance(index, int) or not isinstance(score, int | float) or not 0 <= index < count:
                raise MalformedReplyError(f"a result of a reranking that cannot be read: {one!r:.80}")
            scores[index] = score
        if np.isnan(scores).any():
            raise MalformedReplyError(f"{len(listed)} scores for {count} documents")
        return scores
