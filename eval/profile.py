"""Where the time goes: stage timings summed against the wall clock, and a flame graph, of searches and of an ingestion.

`python -m eval.profile` works in this process and lets py-spy watch it from another; the pictures go under .cache/eval.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from eval import command
from eval.corpus import CHUNK_TOKENS, DESK
from eval.ingestion import CORPUS
from eval.latency import QUERIES, questions
from indexers.sources import sources
from server.base import SearchRequest
from server.build import build
from server.ingest import Target
from server.settings import Settings
from server.telemetry import Trace

OUTPUT = Path(".cache/eval/profile")
_HERTZ = 200


@contextmanager
def flame_graph(name: str) -> Iterator[Path]:
    """py-spy records this process while the block runs, idle threads left out; the path is the picture's."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    picture = OUTPUT / f"{name}.svg"
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise SystemExit("py-spy is not installed: the development environment has it, `make .venv-dev/ok`")
    command = [program, "record", "--nonblocking", "--rate", str(_HERTZ), "--output", str(picture)]
    watcher = subprocess.Popen([*command, "--pid", str(os.getpid())], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield picture
    finally:
        watcher.send_signal(signal.SIGINT)
        _, said = watcher.communicate(timeout=60)
    if not picture.exists():
        raise SystemExit(f"py-spy gave no picture: {said.decode()[-500:]}")


async def searches(folder: Path, asked: Sequence[str], *, rerank: bool) -> list[Mapping[str, float]]:
    """The timings of each search, after a few to warm up, none of them twice."""
    desk = await build(Settings(data_dir=folder, chunk_tokens=CHUNK_TOKENS), command="eval.profile")
    try:
        for question in asked[:20]:
            await desk.pipeline.search(SearchRequest(question, "docs", rerank=rerank))
        found: list[Mapping[str, float]] = []
        with flame_graph(f"search{'-reranked' if rerank else ''}"):
            for question in asked[20:]:
                trace = Trace()
                await desk.pipeline.search(SearchRequest(question, "docs", rerank=rerank), trace)
                found.append(trace.timings_ms())
        return found
    finally:
        await desk.close()


async def ingestion(documents: int) -> tuple[Mapping[str, float], float]:
    """Seconds busy in each stage, and those of the clock."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "corpus.jsonl")
        file.write_text("\n".join(CORPUS.read_text().splitlines()[:documents]))
        desk = await build(Settings(data_dir=Path(folder, "data")), command="eval.profile")
        try:
            with flame_graph("ingestion"):
                receipt = await desk.pipeline.ingest(list(sources(file)), Target("docs"))
        finally:
            await desk.close()
    return receipt.stages_s, receipt.seconds


def search_table(title: str, timings: Sequence[Mapping[str, float]]) -> Table:
    """p50 of each stage and its share of the total; `own` is what no model or engine was at work in."""
    out = Table("", "p50 ms", "p95 ms", "share of the total", title=title)
    total = sum(one["total"] for one in timings)
    stages = sorted(set().union(*timings) - {"total"}, key=lambda stage: -sum(one.get(stage, 0) for one in timings))
    for stage in [*stages, "total"]:
        values = [one.get(stage, 0.0) for one in timings]
        share = f"{sum(values) / total:.0%}"
        out.add_row(stage, f"{np.percentile(values, 50):.2f}", f"{np.percentile(values, 95):.2f}", share)
    return out


def ingestion_table(stages_s: Mapping[str, float], seconds: float) -> Table:
    out = Table("", "seconds", "share of the clock", title="an ingestion; stages run side by side")
    for stage, busy in sorted(stages_s.items(), key=lambda item: -item[1]):
        out.add_row(stage, f"{busy:.2f}", f"{busy / seconds:.0%}")
    out.add_row("the clock", f"{seconds:.2f}", "100%")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DESK)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--questions", type=int, default=250)
    arguments = parser.parse_args()
    command.needs_desk(arguments.folder)
    command.needs(QUERIES, CORPUS)
    asked, tables = questions(2 * arguments.questions), []
    halves = {False: asked[: arguments.questions], True: asked[arguments.questions :]}
    for rerank, some in halves.items():
        timings = asyncio.run(searches(arguments.folder, some, rerank=rerank))
        tables.append(search_table(f"a search, {'reranked' if rerank else 'no rerank'}, {arguments.folder}", timings))
    stages_s, seconds = asyncio.run(ingestion(arguments.documents))
    tables.append(ingestion_table(stages_s, seconds))
    Console().print(*tables)
    (OUTPUT / "ingestion.json").write_text(json.dumps({"stages_s": dict(stages_s), "seconds": seconds}))
    print(f"flame graphs: {', '.join(str(path) for path in sorted(OUTPUT.glob('*.svg')))}")


if __name__ == "__main__":
    command.run(main)
