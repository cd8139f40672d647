"""Do both profiles answer alike? The same documents in the embedded index and in Qdrant with OpenSearch.

`python -m eval.congruence --set qdrant_url=http://127.0.0.1:6333 --set opensearch_urls=http://127.0.0.1:9200` prints a
table: nDCG@10 of each leg and of their fusion in both, how many hits they share, how far BM25 scores are apart, and
whether removing another tenant's documents changed any score. Exit code 1 if they differ by more than is allowed.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from eval.datasets import Dataset, read_dataset
from eval.metrics import JUDGED, measure
from eval.profiles import Profile, Remembered, profile
from indexers.base import Float32, Hit, Index, View
from indexers.edge import EdgeIndex
from indexers.sources import Source
from server.base import NamespaceState
from server.build import Desk, build
from server.build_stores import open_index
from server.fuse import ranks, rrf
from server.pipeline import normalise
from server.settings import Settings

DATA = Path("../shared/data")
OTHERS = (DATA / "squad/corpus.jsonl", DATA / "chunking/corpora/finance.md")
CACHE = Path(".cache/congruence")
SHARED_AT = 10  # hits whose overlap is counted
SAME_SCORE = 1e-5  # what float32 tells apart
LEAST_SHARED = 0.98  # of the dense leg's
MOST_APART = {"fused": 0.01, "dense": 0.015, "BM25": 0.015}  # nDCG@10


@dataclass(frozen=True, slots=True)
class Answered:
    """What one profile found: hits of each leg by question, and the item that each chunk stands for."""

    dense: Mapping[str, list[Hit]]
    bm25: Mapping[str, list[Hit]]

    def rankings(self, rrf_k: int) -> dict[str, dict[str, list[str]]]:
        """Chunk ids by column and question."""
        legs = {"dense": _ids(self.dense), "BM25": _ids(self.bm25)}
        pairs = {q: [ranks(legs["BM25"][q]), ranks(legs["dense"][q])] for q in self.dense}
        return {**legs, "fused": {q: [id_ for id_, _ in rrf(both, rrf_k)] for q, both in pairs.items()}}


@dataclass(frozen=True, slots=True)
class Congruence:
    """Two profiles compared. `ndcg` by column: (embedded, gpu). Overlaps are mean shares of the first ten."""

    ndcg: Mapping[str, tuple[float, float]]
    overlap: Mapping[str, float]
    score_apart: float  # largest relative difference of two BM25 scores of one chunk for one question
    changed_by_removal: Mapping[str, int]  # by profile, questions whose scores another tenant's removal changed

    @property
    def faults(self) -> list[str]:
        """What is further apart than is allowed."""
        found = [
            f"{column}: nDCG@10 differs by {abs(one - other):.4f}"
            for column, (one, other) in self.ndcg.items()
            if abs(one - other) > MOST_APART[column]
        ]
        if self.overlap["dense"] < LEAST_SHARED:
            found.append(f"the dense leg shares {self.overlap['dense']:.4f} of its first {SHARED_AT}")
        found += [
            f"{name}: a removal elsewhere changed {n} questions" for name, n in self.changed_by_removal.items() if n
        ]
        return found


@dataclass(frozen=True, slots=True)
class Questions:
    """Words and vectors by the question's id."""

    texts: Mapping[str, str]
    vectors: Mapping[str, Float32]

    @classmethod
    async def of(cls, dataset: Dataset, desk: Desk) -> "Questions":
        texts = {id_: normalise(text, desk.settings.max_question_chars) for id_, text in dataset.questions.items()}
        embedded = await desk.pipeline.models.embedder.embed_queries(list(texts.values()))
        return cls(texts, {id_: each.vector for id_, each in zip(texts, embedded, strict=True)})

    async def ask(self, index: Index, state: NamespaceState, top_k: int) -> Answered:
        """Ask both legs of a namespace every question."""
        view, space = View(state.commit), state.namespace
        return Answered(
            dense={id_: await index.search_dense(space, vector, view, top_k) for id_, vector in self.vectors.items()},
            bm25={id_: await index.search_text(space, text, view, top_k) for id_, text in self.texts.items()},
        )


async def compare(desk: Desk, profiles: Sequence[Profile], others: Sequence[Path], dataset: Dataset) -> Congruence:
    """Ingest the other files and the data set, each into a namespace of its own; ask; empty the first of the others and
    ask again."""
    embedder = Remembered(desk.pipeline.models.embedder, CACHE / "vectors.npz")
    questions, top_k = await Questions.of(dataset, desk), desk.settings.leg_top_k
    answers: dict[str, Answered] = {}
    columns: dict[str, dict[str, float]] = {}
    changed: dict[str, int] = {}
    for one in profiles:
        for file in [*others, dataset.corpus]:
            state = await one.ingest(desk, embedder, Source(file.name, file.resolve()), namespace_of(file))
            embedder.keep()
        found = answers[one.name] = await questions.ask(one.index, state, top_k)
        columns[one.name] = await _scores(one, state, dataset, found.rankings(desk.settings.rrf_k))
        await one.empty(namespace_of(others[0]))
        again = await questions.ask(one.index, state, top_k)
        changed[one.name] = sum(_is_changed(id_, found, again) for id_ in questions.texts)
    (name, first), (other, second) = answers.items()
    return Congruence(
        ndcg={column: (score, columns[other][column]) for column, score in columns[name].items()},
        overlap={"dense": _overlap(first.dense, second.dense), "BM25": _overlap(first.bm25, second.bm25)},
        score_apart=_score_apart(first.bm25, second.bm25),
        changed_by_removal=changed,
    )


def namespace_of(file: Path) -> str:
    """The namespace that a file is ingested into: "scifact" of scifact/corpus.jsonl."""
    return file.resolve().parent.name


async def _scores(
    one: Profile, state: NamespaceState, dataset: Dataset, rankings: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, float]:
    ids = {id_ for ranking in rankings.values() for each in ranking.values() for id_ in each}
    chunks = await one.catalog.chunks(state.id, sorted(ids), state.commit)
    return {
        column: measure(
            dataset.qrels, {q: dataset.items(q, [chunks[id_] for id_ in each]) for q, each in ranking.items()}
        ).mean[JUDGED]
        for column, ranking in rankings.items()
    }


def _ids(hits: Mapping[str, list[Hit]]) -> dict[str, list[str]]:
    return {question: [hit.id for hit in each] for question, each in hits.items()}


def _overlap(one: Mapping[str, list[Hit]], other: Mapping[str, list[Hit]]) -> float:
    shares = []
    for question, hits in one.items():
        first, second = ({hit.id for hit in each[:SHARED_AT]} for each in (hits, other[question]))
        shares.append(len(first & second) / max(len(first), len(second), 1))
    return float(np.mean(shares))


def _is_changed(question: str, before: Answered, after: Answered) -> bool:
    """Whether BM25 gave anything else, or the dense leg other first hits or another score to the same chunk. Its last
    hits may be others: a graph that is built anew chooses other candidates."""
    one, other = before.dense[question], after.dense[question]
    scores = {hit.id: hit.score for hit in one}
    return (
        before.bm25[question] != after.bm25[question]
        or [hit.id for hit in one[:SHARED_AT]] != [hit.id for hit in other[:SHARED_AT]]
        or any(abs(hit.score - scores.get(hit.id, hit.score)) > SAME_SCORE for hit in other)
    )


def _score_apart(one: Mapping[str, list[Hit]], other: Mapping[str, list[Hit]]) -> float:
    most = 0.0
    for question, hits in one.items():
        scores = {hit.id: hit.score for hit in other[question]}
        most = max([most, *(abs(hit.score / scores[hit.id] - 1) for hit in hits if hit.id in scores)])
    return most


# --- the command ---------------------------------------------------------------------------------------------------


def table(found: Congruence) -> Table:
    out = Table("", "embedded", "gpu", "apart", title="both profiles, the same documents and questions")
    for column, (one, other) in found.ndcg.items():
        out.add_row(f"nDCG@10, {column}", f"{one:.4f}", f"{other:.4f}", f"{abs(one - other):.4f}")
    for leg, share in found.overlap.items():
        out.add_row(f"shared among the first {SHARED_AT}, {leg}", "", "", f"{share:.4f}")
    out.add_row("largest difference of a BM25 score", "", "", f"{found.score_apart:.2%}")
    changed = (str(n) for n in found.changed_by_removal.values())
    out.add_row("questions changed by a removal elsewhere", *changed, "")
    return out


async def run(dataset: Dataset, others: Sequence[Path], gpu: Settings) -> Congruence:
    """Both profiles in a folder that is gone afterwards; what was put on the servers is removed, too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        desk = await build(Settings(data_dir=folder / "desk"), command="eval.congruence")
        try:
            async with AsyncExitStack() as opened:
                edge = EdgeIndex.open(folder / "index")
                embedded = await opened.enter_async_context(profile("embedded", folder / "embedded", edge, desk))
                other = await open_index(gpu)
                served = await opened.enter_async_context(profile("gpu", folder / "gpu", other, desk))
                opened.push_async_callback(served.drop)
                return await compare(desk, [embedded, served], others, dataset)
        finally:
            await desk.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the gpu profile")
    parser.add_argument("--dataset", type=Path, default=DATA / "scifact")
    parser.add_argument("--other", type=Path, action="append", help="a file for a namespace of its own")
    given = parser.parse_args(arguments)
    named = dict(pair.partition("=")[::2] for pair in given.set)
    gpu = Settings.model_validate(
        {"profile": "gpu", "qdrant_prefix": "refdesk-congruence-", "opensearch_prefix": "refdesk-congruence", **named}
    )
    found = asyncio.run(run(read_dataset(given.dataset), given.other or OTHERS, gpu))
    Console().print(table(found))
    for fault in found.faults:
        print(fault)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
