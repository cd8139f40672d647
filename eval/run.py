"""`refdesk eval`: what this build, with these settings, is worth on a data set or on one's own corpus.

DATA is a folder in BEIR's layout (ingested into a folder of its own, which --keep keeps), or a .jsonl, .csv or .tsv
file of questions about what the data folder serves. Also: `refdesk eval compare BASELINE RUN`, `refdesk eval accept RUN
FILE`.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from eval import accept, command, gate
from eval.datasets import Dataset, DatasetError, read_dataset
from eval.evaluation import Corpus, evaluate, ingest
from eval.metrics import METRICS
from eval.page import write_page
from eval.questions import OwnQuestions, check, read_questions
from eval.record import Run, write
from server.base import InvalidRequestError
from server.build import build
from server.cli import assigned
from server.ingest import Tally
from server.pipeline import MAX_NAMESPACES
from server.settings import Settings

COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": gate.main, "accept": accept.main}
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def main(arguments: Sequence[str] | None = None, given: Mapping[str, str] | None = None) -> int:
    """The command; `given` are settings from before it (`refdesk --set … eval`). Returns the exit code.

    Raises InvalidRequestError for data or a setting that is wrong.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    options = _parse(arguments)
    if options.json and options.json.suffix == ".html":
        raise InvalidRequestError(f"--json {str(options.json)!r}: the page has that name; give one that ends in .json")
    overrides = {**(given or {}), **assigned(options.set)}
    data = _read(options)
    with Progress(*_COLUMNS, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        if isinstance(data, Dataset):
            if "data_dir" in overrides:
                raise InvalidRequestError("a data set is ingested into a folder of its own: --keep FOLDER keeps it")
            with _folder(options.keep) as folder:
                settings = settings_for(data, folder, overrides)
                run = asyncio.run(on_dataset(data, settings, progress, without=frozenset(options.without)))
        else:
            run = asyncio.run(on_own_corpus(data, _settings(overrides), options, progress))
    Console().print(table(run))
    output = options.json or Path(".cache/eval", f"{run.name}.json")
    write(run, output)
    write_page(run, output.with_suffix(".html"))
    print(f"each question, settings and commit: {output}; to look at: {output.with_suffix('.html')}")
    return 0


async def on_dataset(
    dataset: Dataset, settings: Settings, progress: Progress, *, without: frozenset[str] = frozenset()
) -> Run:
    """Ingest what the data folder does not hold yet, then evaluate.

    Raises ConflictError if the folder was made with another embedder, DatasetError if a document could not be read; any
    error of the pipeline.
    """
    task = progress.add_task("documents", total=len(dataset.documents))

    def show(tally: Tally) -> None:
        done = tally.added + tally.replaced + tally.patched + tally.unchanged + len(tally.failures)
        progress.update(task, completed=done)

    desk = await build(settings, command="refdesk eval")
    try:
        corpus = await ingest(desk, dataset, show)
        asked = progress.add_task("questions", total=len(dataset.questions))
        return await evaluate(desk, dataset, corpus, without=without, on_question=lambda: progress.advance(asked))
    finally:
        await desk.close()


async def on_own_corpus(own: OwnQuestions, settings: Settings, options: argparse.Namespace, progress: Progress) -> Run:
    """Ask what the data folder serves. Raises DataFolderHeldError while a server runs on it, NotFoundError,
    DatasetError if an answer is nowhere in the corpus."""
    desk = await build(settings, command="refdesk eval")
    try:
        names = list(dict.fromkeys(options.namespace or ["default"]))
        if len(names) > MAX_NAMESPACES:
            raise InvalidRequestError(f"{len(names)} namespaces: name 1 to {MAX_NAMESPACES}", "namespaces")
        states = await desk.catalog.snapshot(options.collection or settings.collection, names)
        corpus = Corpus(tuple(states[name] for name in names))
        judged = await check(own, desk.catalog, corpus.states)
        asked = progress.add_task("questions", total=len(judged.questions))
        without = frozenset(options.without)
        return await evaluate(desk, judged, corpus, without=without, on_question=lambda: progress.advance(asked))
    finally:
        await desk.close()


def table(run: Run) -> Table:
    """The scores, a metric a row and a way of ranking a column; what a search returns in bold."""
    exact = ", ".join(f"{depth} {value:.4f}" for depth, value in run.exact.items())
    found = Table(
        title=f"{run.name}: {run.counts}",
        title_justify="left",
        caption=f"a search returns: {run.served}" + (f"; dense leg against exact: {exact}" if exact else ""),
        caption_justify="left",
    )
    found.add_column("")
    for column in run.means:
        found.add_column(column, justify="right", style="bold" if column == run.served else "")
    for metric in METRICS:
        found.add_row(metric, *(f"{mean[metric]:.3f}" for mean in run.means.values()))
    return found


def settings_for(dataset: Dataset, folder: Path, overrides: Mapping[str, object]) -> Settings:
    """Settings over a data set's own folder, with room for its corpus. Raises InvalidRequestError."""
    settings = _settings({**overrides, "data_dir": folder})
    size = dataset.corpus.stat().st_size
    return settings.model_copy(update={"max_upload_bytes": max(settings.max_upload_bytes, size)})


def _settings(overrides: Mapping[str, object]) -> Settings:
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic converts
    except ValidationError as exc:
        first = exc.errors()[0]
        raise InvalidRequestError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}", "set") from exc


def _read(options: argparse.Namespace) -> Dataset | OwnQuestions:
    path: Path = options.data
    if path.is_file():
        if options.keep:
            raise InvalidRequestError("--keep is for a data set: one's own questions are asked of the data folder")
        return read_questions(path, options.limit)
    if path.is_dir():
        if options.collection or options.namespace:
            raise InvalidRequestError(
                "--collection and --namespace are for one's own questions: a data set has its own"
            )
        return read_dataset(path, options.limit)
    raise DatasetError(
        f"{str(path)!r} is not there: give a folder in BEIR's layout, or a .jsonl, .csv or .tsv of questions"
    )


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="refdesk-eval-") as folder:
        yield Path(folder)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of questions: give 1 or more")
    return int(text)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="refdesk eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, help="a folder in BEIR's layout, or a .jsonl, .csv or .tsv file of questions"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="ask N questions only, evenly spaced")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: .cache/eval/NAME.json")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting; may be repeated")
    parser.add_argument(
        "--without", action="append", default=[], choices=("dense", "bm25"), help="leave a leg out: what is it worth?"
    )
    folder = parser.add_argument_group("a data set")
    folder.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is ingested there, and use it again")
    own = parser.add_argument_group("one's own questions")
    own.add_argument("-c", "--collection", help="default: the setting `collection`")
    own.add_argument("-n", "--namespace", action="append", help="up to 8; default: `default`")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    command.run(main)
