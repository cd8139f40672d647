"""Haystack: the tutorial's hybrid pipeline, a BM25 and a dense retriever (100 each) joined by RRF; served by Hayhooks.

Split by DocumentSplitter's defaults (200 words). Vectors lie in FAISSDocumentStore: the in-memory store, which has its
only BM25 without a server, builds an array of all vectors from lists for every question.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.preprocessors import DocumentSplitter
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
from haystack_integrations.document_stores.faiss import FAISSDocumentStore

PACKAGES = ("haystack-ai", "faiss-haystack", "hayhooks", "sentence-transformers", "torch", "faiss-cpu")
LEG_TOP_K = 100
DIMENSION = 384


class Peer:
    def __init__(self, model: str, folder: str) -> None:
        self.model, self.folder = model, Path(folder)
        self.vectors, self.texts = FAISSDocumentStore(embedding_dim=DIMENSION), InMemoryDocumentStore()

    def ingest(self, corpus: str) -> None:
        with open(corpus, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        documents = [
            Document(content=f"{row['title']}\n\n{row['text']}", meta={"document": row["_id"]}) for row in rows
        ]
        indexing = Pipeline()
        indexing.add_component("splitter", DocumentSplitter())
        indexing.add_component("embedder", SentenceTransformersDocumentEmbedder(model=self.model, progress_bar=False))
        indexing.add_component("dense", DocumentWriter(self.vectors))
        indexing.add_component("bm25", DocumentWriter(self.texts))
        indexing.connect("splitter", "embedder")
        indexing.connect("embedder", "dense")
        indexing.connect("splitter", "bm25")
        indexing.run({"splitter": {"documents": documents}})
        self._join()

    def build(self, texts: dict[str, str], vectors: np.ndarray) -> None:
        pairs = zip(texts.items(), vectors.tolist(), strict=True)
        chunks = [
            Document(id=id_, content=text, meta={"document": id_}, embedding=vector) for (id_, text), vector in pairs
        ]
        self.vectors.write_documents(chunks)
        self.vectors.save(self.folder / "dense")
        self.texts.write_documents([Document(id=c.id, content=c.content, meta=c.meta) for c in chunks])
        self.texts.save_to_disk(str(self.folder / "bm25.json"))

    def load(self) -> None:
        self.vectors = FAISSDocumentStore(str(self.folder / "dense"), embedding_dim=DIMENSION)
        self.texts = InMemoryDocumentStore.load_from_disk(str(self.folder / "bm25.json"))
        self._join()

    def _join(self) -> None:
        self.pipeline = Pipeline()
        self.pipeline.add_component("embedder", SentenceTransformersTextEmbedder(model=self.model, progress_bar=False))
        self.pipeline.add_component("dense", FAISSEmbeddingRetriever(document_store=self.vectors, top_k=LEG_TOP_K))
        self.pipeline.add_component("bm25", InMemoryBM25Retriever(self.texts, top_k=LEG_TOP_K))
        self.pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion"))
        self.pipeline.connect("embedder", "dense")
        self.pipeline.connect("dense", "joiner")
        self.pipeline.connect("bm25", "joiner")
        self.pipeline.warm_up()

    def search(self, question: str, top_k: int) -> list[tuple[str, str, float]]:
        asked = {"embedder": {"text": question}, "bm25": {"query": question}, "joiner": {"top_k": top_k}}
        return [
            (hit.meta["document"], hit.content, hit.score) for hit in self.pipeline.run(asked)["joiner"]["documents"]
        ]


def serve(model: str, folder: str, port: int) -> None:
    """Hayhooks: POST /search/run, which hayhooks/search/pipeline_wrapper.py answers."""
    here = Path(__file__).parent
    command = ["run", "--port", str(port), "--pipelines-dir", str(here / "hayhooks")]
    environment = os.environ | {"PEER_MODEL": model, "PEER_FOLDER": folder}
    environment["HAYHOOKS_ADDITIONAL_PYTHON_PATH"] = str(here)
    os.execve(Path(sys.executable).parent / "hayhooks", ["hayhooks", *command], environment)
