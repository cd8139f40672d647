"""From a desk and judged questions to a Run: ranked, scored, held against an exact search, and what shaped it noted.

A data set in BEIR's layout is ingested first, into a folder of its own; one's own questions are asked of what is there.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from eval.datasets import Dataset, DatasetError
from eval.exact import DEPTHS, recall, search_exactly
from eval.judged import Judged, fingerprint
from eval.metrics import JUDGED, Scores, measure, places
from eval.ranking import Ranked, rank
from eval.record import Asked, Found, Run
from indexers.sources import Source
from models import cpu
from server.base import NamespaceState
from server.build import Desk
from server.ingest import OnProgress, Receipt, Target

_WORST = 50  # questions whose hits are kept, for the report
_SHOWN = 5  # hits of each
_WORDS = 160  # characters of each


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is asked: namespaces at one commit each; `receipt` of the ingestion, if there was one."""

    states: tuple[NamespaceState, ...]
    receipt: Receipt | None = None

    @property
    def left_out(self) -> int:
        """Documents of the ingestion without text: no chunk of theirs can be found."""
        return len(self.receipt.tally.failures) if self.receipt else 0


async def ingest(desk: Desk, dataset: Dataset, on_progress: OnProgress = lambda _: None) -> Corpus:
    """Ingest a data set's corpus, a document a line; what is there already costs a comparison.

    A document whose text is empty is left out. Raises DatasetError if another could not be read.
    """
    source = Source(dataset.corpus.name, dataset.corpus.resolve())
    target = Target(desk.settings.collection, namespace_of(desk, dataset.name), prune=True)
    receipt = await desk.pipeline.ingest([source], target, on_progress)
    failures = [failure for failure in receipt.tally.failures if failure.reason != "empty"]
    if failures:
        raise DatasetError(f"{len(failures)} documents could not be read, the first: {failures[0]}")
    return Corpus((await desk.catalog.namespace(target.collection, target.namespace),), receipt)


def namespace_of(desk: Desk, name: str) -> str:
    """Named after all that shapes chunks and vectors, the precision too: what was kept is used by nothing that would
    make others, and one folder holds several ways of cutting, each with BM25 statistics of its own."""
    embedder = desk.pipeline.models.embedder.info
    made_by = f"{desk.pipeline.chunker.fingerprint} {embedder.fingerprint} {embedder.precision}"
    return f"{name}-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}"


async def evaluate(
    desk: Desk,
    judged: Judged,
    corpus: Corpus,
    *,
    without: frozenset[str] = frozenset(),
    on_question: Callable[[], None] = lambda: None,
) -> Run:
    """Rank and score every question. `without`: legs left out ("dense", "bm25"), to see what they are worth."""
    ranked = await rank(desk, judged, corpus.states, without=without, on_question=on_question)
    scores = {column: measure(judged.qrels, ranking) for column, ranking in ranked.rankings.items()}
    counts = [await desk.catalog.statistics(state.id) for state in corpus.states]
    served = scores[ranked.served].per_question[JUDGED]
    worst = set(sorted(judged.questions, key=lambda id_: served[id_])[:_WORST])
    return Run(
        kind="run",
        name=judged.name,
        fingerprint=fingerprint(judged),
        served=ranked.served,
        means={column: one.mean for column, one in scores.items()},
        exact={} if "dense" in without else await _against_exact(desk, corpus.states, ranked),
        documents=sum(documents for documents, _ in counts),
        chunks=sum(chunks for _, chunks in counts),
        asked=tuple(_asked(judged, ranked, scores, id_, is_shown=id_ in worst) for id_ in judged.questions),
        about={**_about(desk), **_ingestion(corpus.receipt), **({"without": sorted(without)} if without else {})},
        left_out=corpus.left_out,
    )


def _asked(judged: Judged, ranked: Ranked, scores: Mapping[str, Scores], question: str, *, is_shown: bool) -> Asked:
    grades = judged.qrels[question]
    return Asked(
        id=question,
        text=judged.questions[question],
        answers=tuple(judged.label(item) for item, grade in grades.items() if grade > 0),
        metrics={
            column: {name: round(values[question], 6) for name, values in one.per_question.items()}
            for column, one in scores.items()
        },
        places={column: tuple(places(grades, ranking[question])) for column, ranking in ranked.rankings.items()},
        found=_found(judged, ranked, question) if is_shown else (),
    )


async def _against_exact(desk: Desk, states: Sequence[NamespaceState], ranked: Ranked) -> dict[str, float]:
    """Mean recall of the dense leg over questions and namespaces, by depth."""
    questions = np.stack(list(ranked.vectors.values())).astype(np.float32)
    recalls: dict[str, list[float]] = {f"recall@{k}": [] for k in DEPTHS}
    for i, state in enumerate(states):
        exact = await search_exactly(desk.index, state, questions)
        found = [lists[i] for lists in ranked.dense.values()]
        for k in DEPTHS:
            recalls[f"recall@{k}"].append(recall(found, exact, k))
    return {depth: sum(each) / len(each) for depth, each in recalls.items()}


def _found(judged: Judged, ranked: Ranked, question: str) -> tuple[Found, ...]:
    """The first chunks of the served column, one an item."""
    shown: dict[str, Found] = {}
    grades = judged.qrels[question]
    for chunk in ranked.found[question]:
        item = judged.items(question, [chunk])[0]
        label = chunk.uri if item == chunk.id else judged.label(item)
        parts = ("" if chunk.title in label else chunk.title, f"page {chunk.page}" if chunk.page else "")
        words = " ".join(chunk.text.split())[:_WORDS]
        found = Found(label, ", ".join(part for part in parts if part), words, grades.get(item, 0) > 0)
        shown.setdefault(item, found)
    return tuple(shown.values())[:_SHOWN]


def _about(desk: Desk) -> dict[str, object]:
    embedder, reranking = desk.pipeline.models.embedder.info, desk.pipeline.models.reranking
    models = {
        "embedder": embedder.name,
        "embedder_fingerprint": embedder.fingerprint,
        "precision": embedder.precision,
        "chunker_fingerprint": desk.pipeline.chunker.fingerprint,
    }
    if reranking is not None:
        models |= {
            "reranker": reranking.reranker.info.name,
            "reranker_fingerprint": reranking.reranker.info.fingerprint,
        }
    return {
        "models": models,
        "settings": desk.settings.model_dump(mode="json", exclude={"data_dir"}),
        "commit": commit_of_this_code(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }


def _ingestion(receipt: Receipt | None) -> dict[str, object]:
    if receipt is None:
        return {}
    tally = receipt.tally
    counts = {
        "seconds": round(receipt.seconds, 1),
        "embedded_documents": tally.added + tally.replaced,
        "embedded_tokens": tally.tokens,
    }
    return {"ingestion": counts}


def commit_of_this_code() -> str | None:
    """The commit of the working tree, with "+" after it if files differ; None outside of one."""
    root = Path(__file__).parent
    try:
        head, changed = (
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def kept(root: Path, commit: str | None) -> Path:
    """The folder of this code's data and runs, one a commit: no verdict outlives the code it is of.

    What a tree that differs from its commit left there is deleted, since nobody can say which code it is of.
    """
    if commit is not None and not commit.endswith("+"):
        return root / commit
    folder = root / "uncommitted"
    if folder.exists():
        shutil.rmtree(folder)
    return folder


def machine() -> dict[str, object]:
    """The kind of machine, not which one."""
    flags = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & cpu.flags())
    return {"cpu": cpu.name(), "cores": os.cpu_count(), "flags": flags, "python": platform.python_version()}
