"""A data set through the real pipeline: ingested from its corpus.jsonl, then each question ranked column by column.

The legs, the fusion and the reranker are the ones a search uses; a document stands where its best chunk stands.
"""

from collections.abc import Callable, Sequence

from eval.datasets import Dataset
from indexers.base import IndexUnavailableError, View
from indexers.sources import Source
from models.base import QueryEmbedding
from server.base import NamespaceState
from server.build import Desk
from server.fuse import rrf
from server.ingest import OnProgress, Receipt, Target
from server.pipeline import normalise
from server.retrieve import Question, retrieve
from server.telemetry import Trace

DENSE, BM25, FUSED = "dense", "BM25", "fused"
_EMBEDDED_TOGETHER = 64

Rankings = dict[str, dict[str, list[str]]]  # column → question id → document ids, best first


async def ingest(desk: Desk, dataset: Dataset, on_progress: OnProgress) -> tuple[Receipt, NamespaceState]:
    """Ingest the corpus, a document a line; what is there already costs a comparison.

    The namespace is named after data set and chunking, so that one folder holds several ways of cutting, each with BM25
    statistics of its own.
    """
    source = Source(dataset.corpus.name, dataset.corpus.resolve())
    target = Target(desk.settings.collection, f"{dataset.name}-{desk.pipeline.chunker.fingerprint[:12]}", prune=True)
    receipt = await desk.pipeline.ingest([source], target, on_progress)
    return receipt, await desk.catalog.namespace(target.collection, target.namespace)


async def rank(
    desk: Desk, dataset: Dataset, state: NamespaceState, on_question: Callable[[], None] = lambda: None
) -> Rankings:
    """Rank documents for each question: by each leg, fused, reranked, and by RRF of the three lists.

    The reranked columns hold the documents of the fused list's first `fused_top_k` chunks. Raises
    IndexUnavailableError if a leg does not answer: a degraded search measures nothing.
    """
    ranker, rankings = _Ranker(desk, dataset, state), Rankings()
    ids = list(dataset.questions)
    for first in range(0, len(ids), _EMBEDDED_TOGETHER):
        batch = ids[first : first + _EMBEDDED_TOGETHER]
        texts = [normalise(dataset.questions[id_], desk.settings.max_question_chars) for id_ in batch]
        embeddings = await desk.pipeline.models.embedder.embed_queries(texts)
        for id_, text, embedding in zip(batch, texts, embeddings, strict=True):
            for column, documents in (await ranker.rank(text, embedding)).items():
                rankings.setdefault(column, {})[id_] = documents
            on_question()
    return rankings


class _Ranker:
    def __init__(self, desk: Desk, dataset: Dataset, state: NamespaceState) -> None:
        self._desk, self._dataset, self._state = desk, dataset, state
        self._document_of: dict[str, str] = {}  # chunk id → document id

    async def rank(self, text: str, embedding: QueryEmbedding) -> dict[str, list[str]]:
        settings = self._desk.settings
        retrieved = await retrieve(
            self._desk.index,
            Question(text, embedding),
            [(self._state, View(self._state.commit))],
            top_k=settings.leg_top_k,
            timeout_s=settings.leg_timeout_s,
            trace=Trace(),
        )
        if retrieved.degraded:
            raise IndexUnavailableError(f"a leg did not answer: {'; '.join(retrieved.degraded)}")
        legs = {leg.name: [hit.id for hit in leg.hits] for leg in retrieved.legs}
        fused = [id_ for id_, _ in rrf(list(legs.values()), settings.rrf_k)]
        await self._locate(fused)
        lists = {DENSE: legs["dense"], BM25: legs["bm25"], FUSED: fused}
        reranking = self._desk.pipeline.models.reranking
        if reranking is not None:
            reranked = await self._rerank(text, embedding, fused[: settings.fused_top_k])
            name = reranking.reranker.info.name
            three = rrf([legs["dense"], legs["bm25"], reranked], settings.rrf_k)
            lists |= {name: reranked, f"RRF with {name}": [id_ for id_, _ in three]}
        return {column: self._documents(chunks) for column, chunks in lists.items()}

    async def _rerank(self, text: str, embedding: QueryEmbedding, ids: Sequence[str]) -> list[str]:
        reranking = self._desk.pipeline.models.reranking
        assert reranking is not None
        bits_of = self._desk.pipeline.models.embedder.info.fingerprint if reranking.reads_tokens else None
        read = await self._desk.catalog.chunks(self._state.id, ids, self._state.commit, token_bits_of=bits_of)
        order = await reranking.order(text, embedding, [read[id_] for id_ in ids], len(ids))
        return [id_ for id_, _ in order]

    async def _locate(self, ids: Sequence[str]) -> None:
        unknown = [id_ for id_ in ids if id_ not in self._document_of]
        chunks = await self._desk.catalog.chunks(self._state.id, unknown, self._state.commit)
        for id_, chunk in chunks.items():
            line = int(chunk.uri.rpartition("#")[2])
            self._document_of[id_] = self._dataset.documents[line]

    def _documents(self, chunks: Sequence[str]) -> list[str]:
        """Each document once, where its first chunk stands."""
        return list(dict.fromkeys(self._document_of[id_] for id_ in chunks))
