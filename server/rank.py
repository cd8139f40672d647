"""A question to a ranking of chunk ids: embed → dense ‖ bm25 → fuse → rerank. No text leaves: it may be cached."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import orjson

from indexers.base import Index, View
from models.base import Embedder, ModelError, QueryEmbedding
from server.base import NamespaceState, SearchRequest, StoredChunk
from server.cache import Cache
from server.catalog import Catalog
from server.fuse import ranks, rrf
from server.rerank import Reranking
from server.retrieve import Question, Retrieved, retrieve
from server.settings import Settings
from server.telemetry import Trace


@dataclass(frozen=True, slots=True)
class Ranked:
    """One entry of a ranking. `ranks`: the place, from 1, that each leg and the reranker gave it."""

    id: str
    namespace: str
    score: float
    ranks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ranking:
    entries: tuple[Ranked, ...]
    reranker: str | None
    degraded: tuple[str, ...]
    query_tokens: int
    best_dense: float
    best_rerank: float

    def encode(self) -> bytes:
        """JSON, floats exactly: what a cache that processes share keeps."""
        return orjson.dumps(self, option=orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def decode(cls, data: bytes | str) -> Self:
        """Raises ValueError for what `encode` has not made."""
        try:
            stored = orjson.loads(data)
            entries = tuple(Ranked(**entry) for entry in stored.pop("entries"))
            return cls(entries=entries, degraded=tuple(stored.pop("degraded")), **stored)
        except (TypeError, AttributeError, KeyError) as exc:
            raise ValueError(f"no encoded ranking: {exc}") from exc


EMBEDDINGS = 500  # questions whose embeddings are kept: 20 kB each with their token vectors, 400 kB at MiniLM's most

Chunks = dict[str, StoredChunk]
Order = list[tuple[str, float]]


class Ranker:
    def __init__(
        self, settings: Settings, catalog: Catalog, index: Index, *, embedder: Embedder, reranking: Reranking | None
    ) -> None:
        self.settings, self.catalog, self.index = settings, catalog, index
        self.embedder, self.reranking = embedder, reranking
        most = min(settings.cache_entries, EMBEDDINGS)
        self.embeddings: Cache[QueryEmbedding] = Cache(most, settings.cache_ttl_s)

    def fingerprint(self, request: SearchRequest) -> tuple[str, ...]:
        """Every setting and model that shapes a ranking: a part of the cache key."""
        s = self.settings
        reranker = self.reranking.reranker.info.fingerprint if self.reranking and request.rerank else ""
        numbers = (s.leg_top_k, s.rrf_k, s.fused_top_k, s.rerank_budget_ms if reranker else 0)
        return (self.embedder.info.fingerprint, self.embedder.info.precision, reranker, *map(str, numbers))

    async def rank(
        self, request: SearchRequest, states: Sequence[NamespaceState], read: Chunks, trace: Trace
    ) -> Ranking:
        """Rank the chunks that a normalised request may see; those read for the reranker, with their text, are left in
        `read`.

        Raises IndexUnavailableError if neither leg answers; a failing model only degrades.
        """
        embedding, retrieved = await self._retrieve(request, states, trace)
        is_reranked = self.reranking is not None and request.rerank
        with trace.span("fuse"):
            limit = max(self.settings.fused_top_k, request.top_k) if is_reranked else request.top_k
            rankings = [ranks([hit.id for hit in leg.hits]) for leg in retrieved.legs]
            fused = rrf(rankings, self.settings.rrf_k, limit=limit)
            found = _places(retrieved, fused, rankings)
        order, reranker = fused, None
        failed: tuple[str, ...] = ()
        if is_reranked and fused:
            homes = {id_: found[id_].namespace for id_, _ in fused}
            await self._read(homes, states, read, trace)
            order, reranker, failed = await self._rerank(request.question, embedding, fused, read, request.top_k, trace)
        return Ranking(
            entries=tuple(
                _entry(found[id_], score, place, reranker)
                for place, (id_, score) in enumerate(order[: request.top_k], start=1)
            ),
            reranker=reranker,
            degraded=(*retrieved.degraded, *failed),
            query_tokens=embedding.token_count if embedding else 0,
            best_dense=retrieved.best("dense"),
            best_rerank=order[0][1] if reranker is not None else 0.0,
        )

    async def _retrieve(
        self, request: SearchRequest, states: Sequence[NamespaceState], trace: Trace
    ) -> tuple[QueryEmbedding | None, Retrieved]:
        """Embed beside the BM25 legs; an embedding that fails, or is late, leaves these."""
        embedding = asyncio.ensure_future(self._embed(request.question, trace))
        try:
            retrieved = await retrieve(
                self.index,
                Question(request.question, embedding),
                [(state, View(state.commit, request.groups, request.filter)) for state in states],
                top_k=self.settings.leg_top_k,
                timeout_s=self.settings.leg_timeout_s,
                trace=trace,
            )
        finally:
            embedding.cancel()
        is_there = embedding.done() and not embedding.cancelled() and embedding.exception() is None
        return embedding.result() if is_there else None, retrieved

    async def _embed(self, question: str, trace: Trace) -> QueryEmbedding:
        async def compute() -> QueryEmbedding:
            with trace.span("embed", outside=True):
                return (await self.embedder.embed_queries([question]))[0]

        embedding, _ = await self.embeddings.get((self.embedder.info.fingerprint, question), compute)
        return embedding

    async def _read(
        self, homes: Mapping[str, str], states: Sequence[NamespaceState], read: Chunks, trace: Trace
    ) -> None:
        """Chunks with their text and, where the reranker wants them, token vectors: one catalog read."""
        assert self.reranking is not None
        bits_of = self.embedder.info.fingerprint if self.reranking.reads_tokens else None
        with trace.span("read"):
            read.update(await self.catalog.chunks_at(states, homes, token_bits_of=bits_of))

    async def _rerank(
        self,
        question: str,
        embedding: QueryEmbedding | None,
        fused: Order,
        read: Chunks,
        top_k: int,
        trace: Trace,
    ) -> tuple[Order, str | None, tuple[str, ...]]:
        assert self.reranking is not None
        chunks = [read[id_] for id_, _ in fused if id_ in read]
        try:
            with trace.span("rerank", outside=True):
                order = await self.reranking.order(
                    question, embedding, chunks, at_least=max(top_k, self.settings.top_k)
                )
        except ModelError as exc:
            return fused, None, (f"reranker: {exc}",)
        if not order:
            return fused, None, ()
        return order, self.reranking.reranker.info.name, ()


def _places(retrieved: Retrieved, fused: Order, rankings: Sequence[Mapping[str, int]]) -> dict[str, Ranked]:
    """Where each fused id lives and at which place each leg found it; `rankings` are the legs'."""
    found: dict[str, Ranked] = {}
    for id_, score in fused:
        places, home = {}, ""
        for leg, ranking in zip(retrieved.legs, rankings, strict=True):
            if id_ in ranking:
                places[leg.name], home = ranking[id_], leg.namespace
        found[id_] = Ranked(id_, home, score, places)
    return found


def _entry(found: Ranked, score: float, place: int, reranker: str | None) -> Ranked:
    ranks = {**found.ranks, "rerank": place} if reranker else found.ranks
    return Ranked(found.id, found.namespace, score, ranks)
