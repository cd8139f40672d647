"""txtai: an embeddings database with `hybrid=True`, its documented way, and its own API service.

Documents are indexed whole, as in its own BEIR benchmark. Hybrid fuses normalised scores; RRF is what txtai falls back
to where the keyword scores are not normalised.
"""

import json
import os

import numpy as np
import uvicorn
from txtai import Embeddings

PACKAGES = ("txtai", "transformers", "torch", "faiss-cpu")


class Peer:
    def __init__(self, model: str, folder: str) -> None:
        self.folder = folder
        self.embeddings = Embeddings(path=model, hybrid=True, content=True)

    def ingest(self, corpus: str) -> None:
        with open(corpus, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self.embeddings.index((row["_id"], f"{row['title']}. {row['text']}") for row in rows)

    def build(self, texts: dict[str, str], vectors: np.ndarray) -> None:
        """Its model is handed the vectors instead of computing them, batch by batch, in order."""
        rest = iter(vectors)
        self.embeddings.model.encode = lambda batch, category=None: np.stack([next(rest) for _ in batch])
        self.embeddings.index(texts.items())
        self.embeddings.save(self.folder)

    def load(self) -> None:
        self.embeddings.load(self.folder)

    def search(self, question: str, top_k: int) -> list[tuple[str, str, float]]:
        return [(hit["id"], hit["text"], hit["score"]) for hit in self.embeddings.search(question, top_k)]


def serve(model: str, folder: str, port: int) -> None:
    """txtai's API: GET /search."""
    config = {"path": folder, "embeddings": {"path": model, "hybrid": True, "content": True}}
    os.environ["CONFIG"] = json.dumps(config)  # JSON is YAML
    uvicorn.run("txtai.api:app", port=port, log_level="warning")
