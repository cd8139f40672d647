"""Ingestion end to end, read to searchable, beside the bare embedder on the very same chunks, in one run.

`python -m eval.ingestion` prints chunks a second of: the embedder alone, an ingestion, an ingestion under one search
client that asks once or five times a second or without a pause; and the ratios, which are what counts: rates are this
machine's. Ingestions have the priority that they have in a server, or `--priority low`.
"""

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eval import command
from indexers.read import read
from indexers.sources import sources
from models.base import Passage
from models.priority import Priority
from server.base import SearchRequest
from server.build import SERVE, Desk, build
from server.ingest import Target
from server.prepare import WINDOW_CHUNKS
from server.settings import Settings

CORPUS = Path("../shared/data/scifact/corpus.jsonl")
QUERIES = Path("../shared/data/scifact/queries.jsonl")
CLIENTS = {1.0: "asking once a second", 0.2: "asking five times a second", 0.0: "asking without a pause"}


@dataclass(frozen=True, slots=True)
class Rate:
    name: str
    chunks: int
    seconds: float
    searches: int = 0

    @property
    def per_second(self) -> float:
        return self.chunks / self.seconds


async def bare(desk: Desk, file: Path) -> Rate:
    """The embedder alone, in the ingestion's own windows, on chunks made beforehand."""
    documents = read(file.read_bytes(), file.name, max_bytes=2**30).documents
    chunker = desk.pipeline.chunker
    passages = [
        Passage(chunk.context + document.text[chunk.start : chunk.end], chunk.token_ids)
        for document, chunks in zip(documents, chunker.chunk_batch(documents), strict=True)
        for chunk in chunks
    ]
    started = time.perf_counter()
    for at in range(0, len(passages), WINDOW_CHUNKS):
        await desk.pipeline.models.embedder.embed_passages(passages[at : at + WINDOW_CHUNKS])
    return Rate("embedder alone", len(passages), time.perf_counter() - started)


def endless() -> Iterator[str]:
    """Questions, never the same one, so that no cache answers."""
    asked = [json.loads(line)["text"] for line in QUERIES.read_text().splitlines()]
    return (f"{question} {number}" for number, question in enumerate(itertools.cycle(asked)))


async def ingest(
    desk: Desk, file: Path, namespace: str, *, asked: Iterator[str] | None = None, every_s: float = 0.0
) -> Rate:
    """An ingestion into an empty namespace, with or without a client that asks these questions, as often as is said but
    never before its last answer is there."""
    searches = 0

    async def client(questions: Iterator[str]) -> None:
        nonlocal searches
        for question in questions:
            due = time.perf_counter() + every_s
            await desk.pipeline.search(SearchRequest(question, "docs", ("bare",), rerank=False))
            searches += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    other = None if asked is None else asyncio.create_task(client(asked))
    started = time.perf_counter()
    receipt = await desk.pipeline.ingest(list(sources(file)), Target("docs", namespace))
    seconds = time.perf_counter() - started
    if other is not None:
        other.cancel()
        await asyncio.wait([other])
    name = "ingestion" if asked is None else f"ingestion, one client {CLIENTS[every_s]}"
    return Rate(name, receipt.tally.chunks, seconds, searches)


async def run(documents: int, repeats: int, priority: Priority) -> list[Rate]:
    """All of them, in turn, `repeats` times; of each the fastest: what slows a run down is never the code alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "corpus.jsonl")
        file.write_text("\n".join(CORPUS.read_text().splitlines()[:documents]))
        settings = Settings(data_dir=Path(folder, "data"), ingestion_priority=priority)
        desk = await build(settings, command=SERVE)
        try:
            questions = endless()  # one series for all rounds
            await ingest(desk, file, "bare")  # warm, and something to search
            rates = []
            for i in range(repeats):
                rates += [await bare(desk, file), await ingest(desk, file, f"quiet-{i}")]
                for s in CLIENTS:
                    rates.append(await ingest(desk, file, f"every-{s}-{i}", asked=questions, every_s=s))
        finally:
            await desk.close()
    names = list(dict.fromkeys(rate.name for rate in rates))
    return [min((r for r in rates if r.name == name), key=lambda r: r.seconds) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--priority", choices=("idle", "low"), default="idle")
    arguments = parser.parse_args()
    command.needs(CORPUS, QUERIES)
    rates = asyncio.run(run(arguments.documents, arguments.repeats, arguments.priority))
    out = Table("", "chunks", "seconds", "chunks/s", "of the embedder alone", "searches beside it")
    for rate in rates:
        share = rate.per_second / rates[0].per_second
        row = (str(rate.chunks), f"{rate.seconds:.1f}", f"{rate.per_second:.1f}", f"{share:.0%}")
        out.add_row(rate.name, *row, str(rate.searches or ""))
    Console().print(out)


if __name__ == "__main__":
    command.run(main)
