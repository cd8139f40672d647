"""Each question ranked column by column: by each leg, fused, and by every reranker there is.

The legs, the fusion and the rerankers are the ones a search uses, asked of the namespaces that it would ask. With
several namespaces a leg's column is the RRF of their lists, as in a search.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from eval.judged import Judged
from indexers.base import Float32, IndexUnavailableError, View
from models.base import QueryEmbedding
from models.late_interaction import LateInteractionReranker
from server.base import NamespaceState, StoredChunk
from server.build import Desk
from server.fuse import ranks, rrf
from server.pipeline import normalise
from server.rerank import Reranking
from server.retrieve import Leg, Question, retrieve
from server.telemetry import Trace

DENSE, BM25, FUSED = "dense", "BM25", "fused"
_LEG_COLUMNS = {"dense": DENSE, "bm25": BM25}
_EMBEDDED_TOGETHER = 64
_PATIENCE_S = 120.0  # quality is measured, not speed: a busy machine must not end it

Rankings = dict[str, dict[str, list[str]]]  # column → question id → items, best first


@dataclass(frozen=True, slots=True)
class Ranked:
    """Everything that was found. `served`: the column that a search returns; `found`: its chunks, by question.

    `vectors` and `dense` are what the dense leg was asked and what it gave, by question and in the namespaces' order.
    """

    served: str
    rankings: Rankings = field(default_factory=dict)
    found: dict[str, list[StoredChunk]] = field(default_factory=dict)
    vectors: dict[str, Float32] = field(default_factory=dict)
    dense: dict[str, list[list[str]]] = field(default_factory=dict)


async def rank(
    desk: Desk,
    judged: Judged,
    states: Sequence[NamespaceState],
    *,
    without: frozenset[str] = frozenset(),
    on_question: Callable[[], None] = lambda: None,
) -> Ranked:
    """Rank what each question stands for: by each leg, fused, reranked, and by RRF of the legs and the served reranker.

    The reranked columns hold the items of the fused list's first `fused_top_k` chunks. `without`: legs ("dense",
    "bm25") whose answer is thrown away. Raises IndexUnavailableError if a leg does not answer: a degraded search
    measures nothing.
    """
    async with _Ranker.of(desk, states, without) as ranker:
        ranked = Ranked(ranker.served)
        ids = list(judged.questions)
        for first in range(0, len(ids), _EMBEDDED_TOGETHER):
            batch = ids[first : first + _EMBEDDED_TOGETHER]
            texts = [normalise(judged.questions[id_], desk.settings.max_question_chars) for id_ in batch]
            embeddings = await desk.pipeline.models.embedder.embed_queries(texts)
            for id_, text, embedding in zip(batch, texts, embeddings, strict=True):
                columns, dense = await ranker.rank(text, embedding)
                for column, chunks in columns.items():
                    ranked.rankings.setdefault(column, {})[id_] = judged.items(id_, chunks)
                ranked.found[id_] = columns[ranker.served][: desk.settings.top_k]
                ranked.vectors[id_], ranked.dense[id_] = embedding.vector, dense
                on_question()
    return ranked


class _Ranker:
    def __init__(
        self, desk: Desk, states: Sequence[NamespaceState], without: frozenset[str], rerankings: Sequence[Reranking]
    ) -> None:
        self._desk, self._states, self._without, self._rerankings = desk, states, without, rerankings
        self.served = rerankings[-1].reranker.info.name if rerankings else FUSED
        self._chunks: dict[str, StoredChunk] = {}

    @classmethod
    def of(cls, desk: Desk, states: Sequence[NamespaceState], without: frozenset[str]) -> "_Ranker":
        """With late interaction, where there are token vectors, beside the reranker that the settings name."""
        served = desk.pipeline.models.reranking
        info = desk.pipeline.models.embedder.info
        rerankings = [served] if served is not None else []
        if served is not None and not served.reads_tokens and info.has_token_vectors:
            rerankings.insert(0, Reranking(LateInteractionReranker(info.fingerprint)))
        return cls(desk, states, without, rerankings)

    async def __aenter__(self) -> "_Ranker":
        return self

    async def __aexit__(self, *_: object) -> None:
        for reranking in self._rerankings[:-1]:  # the last is the desk's own
            await reranking.reranker.close()

    async def rank(self, text: str, embedding: QueryEmbedding) -> tuple[dict[str, list[StoredChunk]], list[list[str]]]:
        """Chunks by column, and the dense leg's ids by namespace."""
        settings = self._desk.settings
        legs = await self._legs(text, embedding)
        fused = _fused([_ids(leg) for leg in legs], settings.rrf_k)
        lists = {
            column: _joined([_ids(leg) for leg in legs if leg.name == name], settings.rrf_k)
            for name, column in _LEG_COLUMNS.items()
            if name not in self._without
        }
        lists[FUSED] = fused
        await self._read(fused)
        for reranking in self._rerankings:
            reranked = await self._rerank(reranking, text, embedding, fused[: settings.fused_top_k])
            lists[reranking.reranker.info.name] = reranked
        if self._rerankings:
            three = [*(_ids(leg) for leg in legs), lists[self.served]]
            lists[f"RRF with {self.served}"] = _fused(three, settings.rrf_k)
        dense = [_ids(leg) for leg in legs if leg.name == "dense"]
        return {column: [self._chunks[id_] for id_ in ids] for column, ids in lists.items()}, dense

    async def _legs(self, text: str, embedding: QueryEmbedding) -> list[Leg]:
        settings = self._desk.settings
        retrieved = await retrieve(
            self._desk.index,
            Question(text, embedding),
            [(state, View(state.commit)) for state in self._states],
            top_k=settings.leg_top_k,
            timeout_s=max(settings.leg_timeout_s, _PATIENCE_S),
            trace=Trace(),
        )
        if retrieved.degraded:
            raise IndexUnavailableError(f"a leg did not answer: {'; '.join(retrieved.degraded)}")
        return [leg for leg in retrieved.legs if leg.name not in self._without]

    async def _rerank(
        self, reranking: Reranking, text: str, embedding: QueryEmbedding, ids: Sequence[str]
    ) -> list[str]:
        chunks = [self._chunks[id_] for id_ in ids]
        if reranking.reads_tokens:
            bits_of = self._desk.pipeline.models.embedder.info.fingerprint
            read = await self._read_from_catalog(ids, bits_of)
            chunks = [read[id_] for id_ in ids]
        order = await reranking.order(text, embedding, chunks, self._desk.settings.top_k)
        return [id_ for id_, _ in order]

    async def _read(self, ids: Iterable[str]) -> None:
        self._chunks |= await self._read_from_catalog([id_ for id_ in ids if id_ not in self._chunks], None)

    async def _read_from_catalog(self, ids: Sequence[str], bits_of: str | None) -> Mapping[str, StoredChunk]:
        read: dict[str, StoredChunk] = {}
        for state in self._states:
            left = [id_ for id_ in ids if id_ not in read]
            if left:
                read |= await self._desk.catalog.chunks(state.id, left, state.commit, token_bits_of=bits_of)
        return read


def _ids(leg: Leg) -> list[str]:
    return [hit.id for hit in leg.hits]


def _joined(lists: Sequence[Sequence[str]], k: int) -> list[str]:
    """One list as it is, several by rank."""
    return list(lists[0]) if len(lists) == 1 else _fused(lists, k)


def _fused(lists: Sequence[Sequence[str]], k: int) -> list[str]:
    return [id_ for id_, _ in rrf([ranks(one) for one in lists], k)]
