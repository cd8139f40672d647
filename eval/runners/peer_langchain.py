"""LangChain: EnsembleRetriever (RRF, k = 60) over FAISS and BM25Retriever, each asked for 100.

Split by RecursiveCharacterTextSplitter into 1,000 characters with 200 repeated, as its tutorials do. BM25Retriever
splits at white space by default; its documentation advises a tokenizer, so it gets lower-cased words.
"""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import thin_route
from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter

PACKAGES = ("langchain-classic", "langchain-community", "sentence-transformers", "torch", "faiss-cpu", "rank-bm25")
LEG_TOP_K = 100


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Peer:
    def __init__(self, model: str, folder: str) -> None:
        self.folder = Path(folder)
        self.embeddings = HuggingFaceEmbeddings(model_name=model)

    def ingest(self, corpus: str) -> None:
        with open(corpus, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        documents = [Document(f"{row['title']}\n\n{row['text']}", metadata={"document": row["_id"]}) for row in rows]
        chunks = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200).split_documents(documents)
        for i, chunk in enumerate(chunks):
            chunk.metadata["id"] = i
        bm25 = BM25Retriever.from_documents(chunks, k=LEG_TOP_K, preprocess_func=words)
        self._join(FAISS.from_documents(chunks, self.embeddings), bm25)

    def build(self, texts: dict[str, str], vectors: np.ndarray) -> None:
        metadata = [{"document": id_, "id": id_} for id_ in texts]
        pairs = zip(texts.values(), vectors.tolist(), strict=True)
        FAISS.from_embeddings(pairs, self.embeddings, metadata).save_local(str(self.folder))
        bm25 = BM25Retriever.from_texts(list(texts.values()), metadata, k=LEG_TOP_K, preprocess_func=words)
        (self.folder / "bm25.pickle").write_bytes(pickle.dumps(bm25))

    def load(self) -> None:
        dense = FAISS.load_local(str(self.folder), self.embeddings, allow_dangerous_deserialization=True)
        self._join(dense, pickle.loads((self.folder / "bm25.pickle").read_bytes()))

    def _join(self, dense: FAISS, bm25: BM25Retriever) -> None:
        retrievers = [dense.as_retriever(search_kwargs={"k": LEG_TOP_K}), bm25]
        self.retriever = EnsembleRetriever(retrievers=retrievers, id_key="id")

    def search(self, question: str, top_k: int) -> list[tuple[str, str, float]]:
        hits = self.retriever.invoke(question)[:top_k]
        return [(hit.metadata["document"], hit.page_content, -float(place)) for place, hit in enumerate(hits)]


def serve(model: str, folder: str, port: int) -> None:
    """No server of its own (LangServe is archived): a thin route."""
    peer = Peer(model, folder)
    peer.load()
    thin_route.serve(peer.search, port)
