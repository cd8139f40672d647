"""refdesk itself, as shipped: its pipeline in-process, `refdesk serve` over HTTP."""

import asyncio
import json
import os
import sys
from pathlib import Path

from eval.corpus import CHUNK_TOKENS
from indexers.sources import Source
from server.base import SearchRequest
from server.build import Desk, build
from server.ingest import Target
from server.settings import Settings

PACKAGES = ("openvino", "qdrant-edge-py", "tokenizers")


class Peer:
    """`model` is a built-in one's name; what is searched has been ingested by refdesk, never built from vectors."""

    def __init__(self, model: str, folder: str) -> None:
        self.model, self.folder = model, Path(folder)
        self.runner = asyncio.Runner()
        self.ids: dict[int, str] = {}  # line of the corpus → document

    def ingest(self, corpus: str) -> None:
        file = Path(corpus)
        self.desk = self._open(Settings(data_dir=self.folder, embedder=self.model))
        receipt = self.runner.run(self.desk.pipeline.ingest([Source(file.name, file)], Target("docs")))
        if receipt.tally.failures:
            raise SystemExit(f"not read: {receipt.tally.failures[0]}")
        with file.open(encoding="utf-8") as lines:
            self.ids = {number: json.loads(line)["_id"] for number, line in enumerate(lines, start=1) if line.strip()}

    def load(self) -> None:
        self.desk = self._open(Settings(data_dir=self.folder, embedder=self.model, chunk_tokens=CHUNK_TOKENS))

    def _open(self, settings: Settings) -> Desk:
        return self.runner.run(build(settings, command="eval.compare_peers"))

    def search(self, question: str, top_k: int, *, rerank: bool) -> list[tuple[str, str, float]]:
        request = SearchRequest(question, "docs", top_k=top_k, rerank=rerank)
        hits = self.runner.run(self.desk.pipeline.search(request)).hits
        return [(self._id(hit.chunk.uri, hit.chunk.id), hit.chunk.text, hit.score) for hit in hits]

    def _id(self, uri: str, chunk: str) -> str:
        return self.ids[int(uri.rpartition("#")[2])] if self.ids else chunk


def serve(model: str, folder: str, port: int) -> None:
    """`refdesk serve`: POST /v1/search."""
    settings = {
        "DATA_DIR": folder,
        "EMBEDDER": model,
        "PORT": str(port),
        "KEYS_REQUIRED": "false",
        "CHUNK_TOKENS": str(CHUNK_TOKENS),
    }
    environment = os.environ | {f"REFDESK_{name}": value for name, value in settings.items()}
    os.execve(sys.executable, [sys.executable, "-m", "server", "serve"], environment)
