"""LlamaIndex: QueryFusionRetriever in reciprocal_rerank mode over a VectorStoreIndex and BM25Retriever, 100 of each.

Split by its default SentenceSplitter. Vectors lie in FAISS: its default store compares them one by one in Python. Inner
product, not L2, since the fusion takes a higher score for a better one.
"""

import json

import faiss
import numpy as np
import thin_route
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.retrievers.bm25 import BM25Retriever
from llama_index.vector_stores.faiss import FaissVectorStore
from transformers import AutoTokenizer

PACKAGES = (
    "llama-index-core",
    "llama-index-retrievers-bm25",
    "llama-index-vector-stores-faiss",
    "sentence-transformers",
    "torch",
    "faiss-cpu",
)
LEG_TOP_K = 100
DIMENSION = 384
SPECIAL = 2  # tokens that the model's own add to a chunk


class Peer:
    def __init__(self, model: str, folder: str, *, reads: int | None = None) -> None:
        """`reads`: tokens that the model reads of a chunk: none has more then. 20 are repeated, as by default."""
        self.folder = folder
        self.embeddings = HuggingFaceEmbedding(model_name=model)
        self.splitters = None
        if reads is not None:
            tokens = AutoTokenizer.from_pretrained(model).tokenize
            self.splitters = [SentenceSplitter(chunk_size=reads - SPECIAL, chunk_overlap=20, tokenizer=tokens)]

    def ingest(self, corpus: str) -> None:
        with open(corpus, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        documents = [Document(text=f"{row['title']}\n\n{row['text']}", id_=row["_id"]) for row in rows]
        index = VectorStoreIndex.from_documents(
            documents, _storage(), embed_model=self.embeddings, transformations=self.splitters
        )
        self._join(index, BM25Retriever.from_defaults(docstore=index.docstore, similarity_top_k=LEG_TOP_K))

    def build(self, texts: dict[str, str], vectors: np.ndarray) -> None:
        pairs = zip(texts.items(), vectors.tolist(), strict=True)
        nodes = [TextNode(text=text, id_=id_, embedding=vector) for (id_, text), vector in pairs]
        index = VectorStoreIndex(nodes, storage_context=_storage(), embed_model=self.embeddings)
        index.storage_context.persist(self.folder)
        BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=LEG_TOP_K).persist(f"{self.folder}/bm25")

    def load(self) -> None:
        store = FaissVectorStore.from_persist_dir(self.folder)
        context = StorageContext.from_defaults(vector_store=store, persist_dir=self.folder)
        index = load_index_from_storage(context, embed_model=self.embeddings)
        self._join(index, BM25Retriever.from_persist_dir(f"{self.folder}/bm25"))

    def _join(self, index: VectorStoreIndex, bm25: BM25Retriever) -> None:
        self.retriever = QueryFusionRetriever(
            [index.as_retriever(similarity_top_k=LEG_TOP_K), bm25],
            llm=MockLLM(),  # it must have one; with num_queries=1 it is never asked
            mode="reciprocal_rerank",
            similarity_top_k=LEG_TOP_K,
            num_queries=1,
            use_async=False,
        )

    def search(self, question: str, top_k: int) -> list[tuple[str, str, float]]:
        hits = self.retriever.retrieve(question)[:top_k]
        return [(hit.node.ref_doc_id or hit.node.node_id, hit.node.text, hit.score) for hit in hits]


def _storage() -> StorageContext:
    return StorageContext.from_defaults(vector_store=FaissVectorStore(faiss.IndexFlatIP(DIMENSION)))


def serve(model: str, folder: str, port: int) -> None:
    """No server of its own for a retriever: a thin route."""
    peer = Peer(model, folder)
    peer.load()
    thin_route.serve(peer.search, port)
