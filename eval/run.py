"""`refdesk eval DATASET`: retrieval quality of this build with these settings, as a table and as JSON.

The data set goes through the real pipeline into a data folder of its own, which `--keep` keeps for the next time.
"""

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from eval.datasets import Dataset, read_dataset
from eval.metrics import METRICS, Scores, measure
from eval.retrieval import ingest, rank
from server.base import InvalidRequestError, NamespaceState
from server.build import Desk, build
from server.ingest import Receipt, Tally
from server.settings import Settings

_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores a column, and what they were measured with."""

    dataset: Dataset
    columns: Mapping[str, Scores]
    receipt: Receipt
    chunks: int
    models: Mapping[str, str]
    settings: Mapping[str, object]
    search_s: float


async def evaluate(dataset: Dataset, settings: Settings, progress: Progress) -> Evaluation:
    """Ingest what the data folder does not hold yet, then rank and score every question.

    Raises ConflictError if the folder was made with another embedder; any error of the pipeline.
    """
    desk = await build(settings, command="eval")
    try:
        receipt, state = await _ingest(desk, dataset, progress)
        task, started = progress.add_task("questions", total=len(dataset.questions)), time.monotonic()
        rankings = await rank(desk, dataset, state, lambda: progress.advance(task))
        _, chunks = await desk.catalog.statistics(state.id)
        return Evaluation(
            dataset=dataset,
            columns={column: measure(dataset.qrels, ranking) for column, ranking in rankings.items()},
            receipt=receipt,
            chunks=chunks,
            models=_models(desk),
            settings=settings.model_dump(mode="json", exclude={"data_dir"}),
            search_s=time.monotonic() - started,
        )
    finally:
        await desk.close()


async def _ingest(desk: Desk, dataset: Dataset, progress: Progress) -> tuple[Receipt, NamespaceState]:
    task = progress.add_task("documents", total=len(dataset.documents))

    def show(tally: Tally) -> None:
        progress.update(task, completed=tally.added + tally.replaced + tally.patched + tally.unchanged)

    return await ingest(desk, dataset, show)


def _models(desk: Desk) -> dict[str, str]:
    embedder, reranking = desk.pipeline.models.embedder.info, desk.pipeline.models.reranking
    named = {
        "embedder": embedder.name,
        "embedder_fingerprint": embedder.fingerprint,
        "precision": embedder.precision,
        "chunker_fingerprint": desk.pipeline.chunker.fingerprint,
    }
    if reranking is not None:
        info = reranking.reranker.info
        named |= {"reranker": info.name, "reranker_fingerprint": info.fingerprint}
    return named


def table(evaluation: Evaluation) -> Table:
    """The scores, a metric a row and a way of ranking a column."""
    title = f"{evaluation.dataset.name}: {len(evaluation.dataset.questions)} questions, "
    title += f"{len(evaluation.dataset.documents)} documents, {evaluation.chunks} chunks"
    found = Table(title=title, title_justify="left")
    found.add_column("")
    for column in evaluation.columns:
        found.add_column(column, justify="right")
    for metric in METRICS:
        found.add_row(metric, *(f"{scores.mean[metric]:.3f}" for scores in evaluation.columns.values()))
    return found


def report(evaluation: Evaluation) -> dict[str, object]:
    """All of it for a JSON file: scores, nDCG@10 of each question, settings, models, commit, time, kind of machine."""
    tally = evaluation.receipt.tally
    return {
        "dataset": evaluation.dataset.name,
        "questions": len(evaluation.dataset.questions),
        "documents": len(evaluation.dataset.documents),
        "chunks": evaluation.chunks,
        "scores": {column: dict(scores.mean) for column, scores in evaluation.columns.items()},
        "ndcg_at_10_per_question": {column: dict(s.per_question) for column, s in evaluation.columns.items()},
        "models": dict(evaluation.models),
        "settings": dict(evaluation.settings),
        "commit": _commit(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "ingestion": {
            "seconds": round(evaluation.receipt.seconds, 1),
            "embedded_documents": tally.added + tally.replaced,
            "embedded_tokens": tally.tokens,
            "unreadable": [failure.source for failure in tally.failures],
        },
        "search_seconds": round(evaluation.search_s, 1),
    }


def _commit() -> str | None:
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


def _machine() -> dict[str, object]:
    """The kind of machine, not which one."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(named.get("flags", "").split()))
    cpu = named.get("model name") or platform.processor() or platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "flags": flags, "python": platform.python_version()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. Raises InvalidRequestError for a data set or a setting that is wrong."""
    given = _parse(arguments)
    dataset = read_dataset(given.dataset, given.limit)
    with _folder(given.keep) as folder, Progress(*_COLUMNS, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        evaluation = asyncio.run(evaluate(dataset, _settings(given.set, folder, dataset), bar))
    if failures := evaluation.receipt.tally.failures:
        print(f"{len(failures)} documents could not be read, the first: {failures[0]}", file=sys.stderr)
    Console().print(table(evaluation))
    output = given.json or Path(".cache/eval", f"{dataset.name}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(orjson.dumps(report(evaluation), option=orjson.OPT_INDENT_2))
    print(f"scores, settings and commit: {output}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="refdesk eval", description=__doc__)
    parser.add_argument("dataset", type=Path, help="a folder in BEIR's layout")
    parser.add_argument("--limit", type=int, metavar="N", help="ask N questions only, evenly spaced")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is ingested there, and use it again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: .cache/eval/DATASET.json")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting; may be repeated")
    return parser.parse_args(arguments)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="refdesk-eval-") as folder:
        yield Path(folder)


def _settings(pairs: Sequence[str], folder: Path, dataset: Dataset) -> Settings:
    """Settings from the environment and `--set`, with room for the corpus. Raises InvalidRequestError."""
    given: dict[str, object] = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        settings = Settings(**given | {"data_dir": folder})  # type: ignore[arg-type]  # pydantic converts
    except ValidationError as exc:
        first = exc.errors()[0]
        raise InvalidRequestError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}", "set") from exc
    size = dataset.corpus.stat().st_size
    return settings.model_copy(update={"max_upload_bytes": max(settings.max_upload_bytes, size)})


if __name__ == "__main__":
    main()
