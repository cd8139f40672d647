"""A large corpus of real text, from what every development machine has: the documentation and licences of its packages.

`python -m eval.corpus` ingests it into .cache/desk-100k until 100,000 chunks are there, and prints the count. It may be
stopped and started again: what is committed stays, and unchanged files cost a hash.
"""

import argparse
import asyncio
import gzip
import hashlib
import io
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from indexers.sources import Source, Upload
from server.build import build
from server.ingest import Tally, Target
from server.settings import Settings

DESK = Path(".cache/desk-100k")
CHUNKS = 100_000
CHUNK_TOKENS = 64  # search speed follows the count of chunks; a quarter of MiniLM's 256 makes them in half an hour
ROOTS = ("../shared/data/chunking/corpora", "/usr/share/doc", sysconfig.get_paths()["purelib"], sys.base_prefix, "/usr")
SUFFIXES = {".md", ".rst", ".txt", ".html", ".htm", ""}
MIN_BYTES, MAX_BYTES = 1_000, 1_000_000
BYTES_A_CHUNK = 80  # of tables, which are the densest; of prose 250
PORTION_BYTES = 2_000_000  # of one ingestion: some 10,000 chunks
LEAST_BYTES = 10_000  # of the last one: the count is overshot by some 100 chunks at most


@dataclass(frozen=True, slots=True)
class Counted:
    documents: int
    chunks: int


def texts(roots: tuple[str, ...] = ROOTS) -> Iterator[Path]:
    """Readable documentation files below the roots, in sorted order, each content once."""
    seen: set[bytes] = set()
    for root in roots:
        for folder, names, files in os.walk(root):
            names.sort()
            for name in sorted(files):
                path = Path(folder, name)
                if is_documentation(path):
                    digest = hashlib.sha256(path.read_bytes()).digest()
                    if digest not in seen:
                        seen.add(digest)
                        yield path


def is_documentation(path: Path) -> bool:
    name = path.name.removesuffix(".gz")
    known = Path(name).suffix.lower() in SUFFIXES or name.upper().startswith(("COPYING", "LICENSE", "README"))
    try:
        return known and path.is_file() and MIN_BYTES <= path.stat().st_size <= MAX_BYTES and os.access(path, os.R_OK)
    except OSError:
        return False


def portion(paths: Iterator[Path], missing: int) -> list[Path]:
    """The next files, for at most `missing` chunks and PORTION_BYTES; what is larger than the room left is skipped."""
    whole = room = max(min(PORTION_BYTES, missing * BYTES_A_CHUNK), LEAST_BYTES)
    found: list[Path] = []
    for path in paths:
        if (size := path.stat().st_size) <= room:
            found.append(path)
            room -= size
        if room < whole / 2:  # so that in a whole portion there is always room for a file of MAX_BYTES
            break
    return found


def source(path: Path) -> Source | Upload:
    """The file as a source; Debian's gzipped documentation is unpacked, as a reader of it would."""
    if path.suffix != ".gz":
        return Source(str(path), path)
    return Upload(str(path.with_suffix("")), io.BytesIO(gzip.decompress(path.read_bytes())))


async def make(folder: Path = DESK, chunks: int = CHUNKS, threads: int = 0) -> Counted:
    """Ingest until `chunks` are there; returns what the namespace holds."""
    settings = Settings(data_dir=folder, chunk_tokens=CHUNK_TOKENS, threads=threads)
    desk = await build(settings, command="eval.corpus")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TimeRemainingColumn(), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("chunks", total=chunks)
            await desk.pipeline.ingest([], Target("docs"))
            state = await desk.catalog.namespace("docs", "default")
            _, have = await desk.catalog.statistics(state.id)

            def show(tally: Tally) -> None:
                progress.update(task, completed=have + tally.chunks)

            paths = texts()
            while have < chunks and (files := portion(paths, chunks - have)):
                await desk.pipeline.ingest(map(source, files), Target("docs"), show)
                _, have = await desk.catalog.statistics(state.id)
        return Counted(*await desk.catalog.statistics(state.id))
    finally:
        await desk.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--folder", type=Path, default=DESK)
    arguments = parser.parse_args()
    counted = asyncio.run(make(arguments.folder, arguments.chunks))
    print(f"{counted.chunks} chunks of {counted.documents} documents in {arguments.folder}")
