"""`python -m eval.chunking`: how cutting documents changes what a search brings of the words that were wanted.

Five corpora with marked gold spans go through the served pipeline, cut one way after the other; every way is asked
every question. The table compares each with the present default, by a paired randomisation test. What was measured is
kept for the same texts and questions, model and precision, and commit.
"""

import argparse
import asyncio
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from eval import command
from eval.answer_metrics import Table
from eval.compare import randomisation_test
from eval.evaluation import commit_of_this_code, kept, namespace_of
from eval.span_metrics import TokenSpan, overlap, positions, token_span, within
from eval.strategies import SpanChunker, library, room_for_text, windows
from indexers.base import Int32
from indexers.chunk import Chunker, ChunkSettings
from indexers.sources import Upload
from models.base import EmbedderInfo
from server.base import SearchRequest
from server.build import Desk, build
from server.ingest import Target
from server.pipeline import Pipeline
from server.settings import Settings

HITS = 5  # of the paper
BUDGETS = (500, 1000, 2000)  # tokens of context
_DEEP = 50  # hits asked for: a budget must be filled by the smallest chunks too
_JUDGED = 1000  # the budget that ways of cutting are compared by


@dataclass(frozen=True, slots=True)
class Way:
    """A way of cutting: `size` is a chunk's whole input to the model, in tokens."""

    strategy: str
    size: int
    overlap: float

    def __str__(self) -> str:
        return f"{self.strategy} {self.size}/{self.overlap:g}"


DEFAULT = Way("structure", 256, Settings.model_fields["chunk_overlap"].default)
WAYS = (
    *(Way("structure", 256, share) for share in (0.0, 0.1, 0.2, 0.3)),
    Way("structure", 192, 0.2),
    *(Way("structure", 128, share) for share in (0.0, 0.2)),
    Way("structure", 64, 0.2),
    *(Way("windows", 256, share) for share in (0.0, 0.2)),
    Way("windows", 128, 0.2),
    *(Way("langchain", size, 0.2) for size in (256, 128)),
    Way("semantic-text-splitter", 256, 0.0),
)


@dataclass(frozen=True, slots=True)
class Marked:
    """A question and the code points of the corpora's text that were wanted for it."""

    text: str
    wanted: Sequence[tuple[str, int, int]]  # corpus, start, end


@dataclass(frozen=True, slots=True)
class Measured:
    """A way's means, and by question the recall within the judged budget."""

    way: Way
    chunks: int
    recall: float
    precision: float
    iou: float
    tokens: float  # of the first HITS
    within: Mapping[str, float]  # recall within each of BUDGETS
    judged: Sequence[float]


def read_corpora(folder: Path) -> tuple[dict[str, str], list[Marked]]:
    """Texts by name, as they are read (white space at their ends taken off, offsets moved), and the questions."""
    raw = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / "corpora").glob("*.md"))}
    cut = {name: len(text) - len(text.lstrip()) for name, text in raw.items()}
    questions = []
    with (folder / "questions.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            name = row["corpus_id"]
            spans = [(name, r["start_index"] - cut[name], r["end_index"] - cut[name]) for r in row["references"]]
            questions.append(Marked(row["question"], spans))
    return {name: text.strip() for name, text in raw.items()}, questions


class Corpora:
    """The texts as tokens, and the questions' gold spans in them."""

    def __init__(self, texts: Mapping[str, str], questions: Sequence[Marked], offsets: Mapping[str, Int32]) -> None:
        self.texts, self.questions, self.offsets = texts, questions, offsets
        self.wanted = [[token_span(name, offsets[name], *span) for name, *span in q.wanted] for q in questions]

    def span(self, name: str, start: int, end: int) -> TokenSpan:
        return token_span(name, self.offsets[name], start, end)


async def measure(way: Way, folder: Path, texts: Mapping[str, str], questions: Sequence[Marked]) -> Measured:
    """Ingest the corpora cut this way, unless they are there, and ask every question."""
    settings = Settings(data_dir=folder, chunk_tokens=way.size, chunk_overlap=way.overlap)
    desk = _cut_as(way, await build(settings, command="eval.chunking"))
    try:
        encoded = desk.pipeline.models.embedder.tokenizer.encode_batch(list(texts.values()))
        offsets = {name: tokens.offsets for name, tokens in zip(texts, encoded, strict=True)}
        corpora = Corpora(texts, questions, offsets)
        target = Target("docs", namespace_of(desk, "chunking"))
        uploads = [Upload(f"{name}.txt", io.BytesIO(text.encode())) for name, text in texts.items()]
        await desk.pipeline.ingest(uploads, target)
        state = await desk.catalog.namespace(target.collection, target.namespace)
        _, chunks = await desk.catalog.statistics(state.id)
        found = [await _search(desk, target, corpora, question.text) for question in questions]
        return _means(way, chunks, corpora, found)
    finally:
        await desk.close()


def _cut_as(way: Way, desk: Desk) -> Desk:
    if way.strategy == "structure":
        return desk
    models = desk.pipeline.models
    info, tokenizer = models.embedder.info, models.embedder.tokenizer
    size = room_for_text(way.size, info.special_tokens)
    if way.strategy == "windows":
        cut = windows(tokenizer, size, way.overlap)
    else:
        model = desk.store.resolve(desk.settings.embedder, "embedder")
        cut = library(way.strategy, model.path / "tokenizer.json", size, way.overlap)
    chunker: Chunker = SpanChunker(
        tokenizer, ChunkSettings(way.size, way.overlap), info.special_tokens, cut=cut, name=way.strategy
    )
    pipeline = Pipeline(desk.settings, desk.catalog, desk.index, writer=desk.writer, models=models, chunker=chunker)
    return replace(desk, pipeline=pipeline)


async def _search(desk: Desk, target: Target, corpora: Corpora, question: str) -> list[TokenSpan]:
    request = SearchRequest(question, target.collection, (target.namespace,), top_k=_DEEP)
    hits = (await desk.pipeline.search(request)).hits
    return [corpora.span(hit.chunk.uri.removesuffix(".txt"), hit.chunk.start, hit.chunk.end) for hit in hits]


def _means(way: Way, chunks: int, corpora: Corpora, found: Sequence[Sequence[TokenSpan]]) -> Measured:
    first = [overlap(want, spans[:HITS]) for want, spans in zip(corpora.wanted, found, strict=True)]
    recalls = {
        budget: [overlap(want, within(spans, budget)).recall for want, spans in zip(corpora.wanted, found, strict=True)]
        for budget in BUDGETS
    }
    return Measured(
        way=way,
        chunks=chunks,
        recall=float(np.mean([one.recall for one in first])),
        precision=float(np.mean([one.precision for one in first])),
        iou=float(np.mean([one.iou for one in first])),
        tokens=float(np.mean([len(positions(spans[:HITS])) for spans in found])),
        within={str(budget): float(np.mean(each)) for budget, each in recalls.items()},
        judged=recalls[_JUDGED],
    )


def table(measured: Sequence[Measured]) -> Table:
    """A way a row; p is of the difference to the default in the recall within the judged budget, if it was measured."""
    default = next((one for one in measured if one.way == DEFAULT), None)
    rows = []
    for one in measured:
        p = ""
        if default is not None and one.way != DEFAULT:
            p = f"{randomisation_test(np.array(one.judged) - np.array(default.judged)):.3f}"
        mark = "**" if one.way == DEFAULT else ""
        rows.append(
            [
                f"{mark}{one.way.strategy}{mark}",
                f"{mark}{one.way.size}{mark}",
                f"{mark}{one.way.overlap:g}{mark}",
                f"{one.chunks:,}",
                *(f"{value:.3f}" for value in (one.recall, one.precision, one.iou)),
                f"{one.tokens:.0f}",
                *(f"{value:.3f}" for value in one.within.values()),
                p,
            ]
        )
    firsts = [f"{name} at {HITS} hits" for name in ("recall", "precision", "IoU", "tokens")]
    budgets = [f"recall within {budget:,}" for budget in BUDGETS]
    return Table(["strategy", "tokens", "overlap", "chunks", *firsts, *budgets, f"p ({_JUDGED:,})"], rows)


async def embedder_of(folder: Path) -> EmbedderInfo:
    """Who embeds, with the settings as they are."""
    desk = await build(Settings(data_dir=folder), command="eval.chunking")
    try:
        return desk.pipeline.models.embedder.info
    finally:
        await desk.close()


def results(folder: Path, texts: Mapping[str, str], questions: Sequence[Marked], embedder: EmbedderInfo) -> Path:
    """Where the ways measured on these texts and questions, by this model in this precision, are kept."""
    asked = [asdict(question) for question in questions]
    shaped_by = json.dumps([texts, asked, embedder.fingerprint, embedder.precision])
    return folder / f"measured-{hashlib.sha256(shaped_by.encode()).hexdigest()[:12]}.json"


def _known(file: Path) -> Iterator[Measured]:
    if file.exists():
        for row in json.loads(file.read_text()):
            yield Measured(**{**row, "way": Way(**row["way"])})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.chunking", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chunking"))
    parser.add_argument("--folder", type=Path, default=Path(".cache/eval/chunking"), help="kept between runs")
    parser.add_argument("--only", nargs="+", metavar="STRATEGY", help="only these strategies")
    given = parser.parse_args()
    command.needs(given.data / "corpora", given.data / "questions.jsonl")
    texts, questions = read_corpora(given.data)
    folder = kept(given.folder, commit_of_this_code())
    embedder = asyncio.run(embedder_of(folder / "desk"))
    file = results(folder, texts, questions, embedder)
    measured = {one.way: one for one in _known(file)}
    for way in WAYS:
        if way not in measured and (not given.only or way.strategy in given.only):
            measured[way] = asyncio.run(measure(way, folder / "desk", texts, questions))
            file.write_text(json.dumps([asdict(one) for one in measured.values()]))
            print(f"{way}: recall within {_JUDGED} tokens {measured[way].within[str(_JUDGED)]:.3f}", flush=True)
    rows = table([measured[way] for way in WAYS if way in measured])
    print(f"\n{len(questions)} questions, {embedder.name} in {embedder.precision}\n\n{rows}")


if __name__ == "__main__":
    command.run(main)
