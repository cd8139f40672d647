"""Memory: of an ingestion as it goes from 1,000 to 100,000 documents, and of a server after a thousand searches.

`python -m eval.memory` starts a real server on some 10,000 chunks of real text and asks it questions, none of them
twice; then it ingests short documents into a folder of its own and looks at this process as their number grows.
"""

import argparse
import asyncio
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from eval import command
from eval.corpus import CHUNK_TOKENS, make
from eval.latency import QUERIES, ask, questions, server
from indexers.sources import Upload
from server.build import build
from server.ingest import Tally, Target
from server.settings import Settings

STEPS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
FOLDER = Path(".cache/desk-memory")
CHUNKS = 9_000  # at least; documents are not cut in two, so that some 10,000 come of it
SEARCHES = 1_000


@dataclass(frozen=True, slots=True)
class Held:
    """MiB of proportional set size: `own` nobody else can have (heap, stacks), `files` are pages of mapped files, which
    the system takes back when it needs them."""

    own: float
    files: float

    @classmethod
    def by(cls, pid: int) -> "Held":
        """Read from smaps_rollup, Linux 5.4 or later."""
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {name.rstrip(":"): int(value) for name, value, *_ in map(str.split, lines)}
        return cls(kib["Pss_Anon"] / 1024, (kib["Pss_File"] + kib["Pss_Shmem"]) / 1024)


def documents(number: int) -> Iterator[Upload]:
    """Short documents, made when they are asked for, no two alike."""
    for i in range(number):
        text = f"Note {i}. The pump of site {i % 977} is serviced every {i % 89 + 2} days by crew {i % 53}."
        yield Upload(f"note-{i}.txt", io.BytesIO(text.encode()))


async def ingestion(number: int, folder: Path) -> list[tuple[int, Held]]:
    """(documents committed, what this process then held) at each step on the way to `number`."""
    desk = await build(Settings(data_dir=folder), command="eval.memory")
    steps, found = [step for step in STEPS if step <= number], list[tuple[int, Held]]()
    try:
        with Progress(disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("documents", total=number)

            def look(tally: Tally) -> None:
                progress.update(task, completed=tally.added)
                while steps and tally.added >= steps[0]:
                    found.append((steps.pop(0), Held.by(os.getpid())))

            receipt = await desk.pipeline.ingest(documents(number), Target("docs"), look)
        if receipt.tally.added != number:
            raise SystemExit(f"{receipt.tally.added} of {number} documents were ingested: {receipt.tally.failures[:3]}")
        return found
    finally:
        await desk.close()


def searching(folder: Path, searches: int) -> tuple[Held, Held]:
    """What a server holds when it is ready, and after that many searches."""
    settings = {"REFDESK_CHUNK_TOKENS": str(CHUNK_TOKENS)}
    asked = questions(searches)
    asked += [f"{question}?" for question in asked[: searches - len(asked)]]
    with server(folder, Path(".cache/memory.log"), **settings) as running:
        ready = Held.by(running.pid)
        ask(running.url, "searches", asked, rerank=False)
        return ready, Held.by(running.pid)


def table(title: str, rows: list[tuple[str, Held]]) -> Table:
    out = Table("", "in all, MiB", "its own", "pages of files", title=title)
    for name, held in rows:
        out.add_row(name, f"{held.own + held.files:.0f}", f"{held.own:.0f}", f"{held.files:.0f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=STEPS[-1])
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--searches", type=int, default=SEARCHES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    command.needs(QUERIES)
    counted = asyncio.run(make(arguments.folder, arguments.chunks))
    ready, after = searching(arguments.folder, arguments.searches)
    title = f"a server on {counted.chunks} chunks (PSS)"
    Console().print(table(title, [("ready", ready), (f"after {arguments.searches} searches", after)]))
    with tempfile.TemporaryDirectory() as folder:
        grown = asyncio.run(ingestion(arguments.documents, Path(folder, "data")))
    rows = [(f"{number:,} documents", held) for number, held in grown]
    Console().print(table("an ingestion, short documents (PSS)", rows))


if __name__ == "__main__":
    command.run(main)
