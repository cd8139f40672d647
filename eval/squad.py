"""SQuAD 2.0 as a collection in memory that questions are asked of: the server's search, without catalog and engine.

Dense (exact) and BM25 top 100 → RRF → 50 → late interaction → 10, over the chunker's own chunks.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import bm25s
import numpy as np
import Stemmer

from indexers.base import Document, Float32
from indexers.chunk import Chunker, ChunkSettings
from models.base import Embedder, Passage, QueryEmbedding, UInt8
from models.late_interaction import max_sim
from server.base import ContextPassage, SearchHit, SearchResult, Span, StoredChunk
from server.fuse import rrf

T = TypeVar("T")

LEG_TOP_K, FUSED_TOP_K = 100, 50


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the paragraph it was written for, and its gold answers: none if it cannot be answered."""

    id: str
    text: str
    paragraph: str
    answers: tuple[str, ...]


def read_questions(path: Path) -> list[Question]:
    """Questions of a queries.jsonl, in its order; a set without answers (SciFact's claims) has none."""
    return [
        Question(str(row["_id"]), str(row["text"]), str(row.get("paragraph", "")), _strings(row.get("answers")))
        for row in _rows(path)
    ]


def every(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, evenly spread over their order, which is that of SQuAD's articles."""
    step = max(1.0, len(items) / max(1, count))
    return [items[int(i * step)] for i in range(min(count, len(items)))]


class SquadSearch:
    """Use `build`. `search` is the server's, with every chunk in memory."""

    def __init__(self, chunks: Sequence[StoredChunk], vectors: Float32, bits: Sequence[UInt8]) -> None:
        self.chunks, self._vectors, self._bits = chunks, vectors, bits
        self._stemmer = Stemmer.Stemmer("english")
        self._bm25 = bm25s.BM25(k1=1.2, b=0.75)
        self._bm25.index(self._terms([f"{c.title}\n{c.text}" for c in chunks]), show_progress=False)

    @classmethod
    async def build(cls, corpus: Path, embedder: Embedder, cache: Path | None = None) -> "SquadSearch":
        """Chunk and embed corpus.jsonl (half a minute); `cache` keeps the embeddings."""
        info = embedder.info
        chunker = Chunker(embedder.tokenizer, ChunkSettings(min(512, info.max_tokens), 0.1), info.special_tokens)
        documents = [_document(row) for row in _rows(corpus)]
        chunks, passages = [], []
        for document, cut in zip(documents, chunker.chunk_batch(documents), strict=True):
            for chunk in cut:
                text = document.text[chunk.start : chunk.end]
                chunks.append(_stored(document, chunk.start, chunk.end, index=chunk.index, tokens=chunk.token_count))
                passages.append(Passage(f"{chunk.context}{text}", chunk.token_ids))
        key = hashlib.sha256(f"{info.fingerprint}{chunker.fingerprint}{len(passages)}".encode()).hexdigest()[:16]
        vectors, bits = await _embed(passages, embedder, cache / f"squad-{key}.npz" if cache else None)
        return cls(chunks, vectors, bits)

    def search(self, question: str, embedding: QueryEmbedding, top_k: int = 10) -> SearchResult:
        """The best chunks, with what answerability is judged by."""
        assert embedding.token_vectors is not None
        cosines = self._vectors @ embedding.vector
        dense = np.argsort(-cosines, kind="stable")[:LEG_TOP_K]
        found, weights = self._bm25.retrieve(self._terms([question]), k=LEG_TOP_K, show_progress=False)
        bm25 = [str(i) for i, weight in zip(found[0], weights[0], strict=True) if weight > 0]
        fused = [int(id_) for id_, _ in rrf([[str(i) for i in dense], bm25])[:FUSED_TOP_K]]
        scores = max_sim(embedding.token_vectors, [self._bits[i] for i in fused])
        order = np.argsort(-scores, kind="stable")[:top_k]
        hits = [
            SearchHit(self.chunks[fused[i]], "default", float(scores[i]), {"rerank": n + 1})
            for n, i in enumerate(order)
        ]
        return SearchResult(
            tuple(hits),
            {"default": 1},
            "late-interaction",
            best_dense=float(cosines[dense[0]]),
            best_rerank=float(scores[order[0]]),
        )

    def best_bm25(self, question: str) -> float:
        """The best raw BM25 score, 0 if no term is known."""
        _, weights = self._bm25.retrieve(self._terms([question]), k=1, show_progress=False)
        return float(weights[0][0])

    def _terms(self, texts: list[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(texts, stopwords="en", stemmer=self._stemmer, show_progress=False)


def passages_of(result: SearchResult) -> list[ContextPassage]:
    """The hits, whole, as numbered passages."""
    return [
        ContextPassage(n, hit, (Span(hit.chunk.start, hit.chunk.end),), hit.chunk.text, hit.chunk.token_count)
        for n, hit in enumerate(result.hits, start=1)
    ]


async def _embed(passages: Sequence[Passage], embedder: Embedder, cache: Path | None) -> tuple[Float32, list[UInt8]]:
    stored = await asyncio.to_thread(_read_cache, cache)
    if stored is not None:
        return stored
    embeddings = await embedder.embed_passages(passages)
    vectors = np.stack([e.vector for e in embeddings])
    bits = [e.token_bits for e in embeddings if e.token_bits is not None]
    if cache:
        np.savez(cache, vectors=vectors, bits=np.concatenate(bits), lengths=[len(b) for b in bits])
    return vectors, bits


def _read_cache(file: Path | None) -> tuple[Float32, list[UInt8]] | None:
    if file is None or not file.exists():
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        return None
    stored = np.load(file)
    return stored["vectors"], np.split(stored["bits"], np.cumsum(stored["lengths"])[:-1])


def _document(row: Mapping[str, object]) -> Document:
    return Document(str(row["_id"]), str(row["title"]).replace("_", " "), str(row["text"]), "text/plain", "", "squad-1")


def _stored(document: Document, start: int, end: int, *, index: int, tokens: int) -> StoredChunk:
    return StoredChunk(
        id=f"{document.uri}@{index}",
        document_id=document.uri,
        version="1",
        uri=document.uri,
        title=document.title,
        index=index,
        total_chunks=index + 1,
        start=start,
        end=end,
        page=None,
        heading_path=(),
        token_count=tokens,
        text=document.text[start:end],
        metadata={},
        groups=(),
    )


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
