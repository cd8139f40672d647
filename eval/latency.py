"""Search speed on the large corpus over HTTP, one client: without rerank, with it, and beside an ingestion.

`python -m eval.latency` (after `python -m eval.corpus`) starts a real server on the ingested folder and asks it real
questions, none of them twice.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import numpy as np
from rich.console import Console
from rich.table import Table

from eval import command
from eval.corpus import DESK
from server.lock import holder_of

SCIFACT = Path("../shared/data/scifact/queries.jsonl")
SQUAD = Path("../shared/data/squad")
QUERIES = SQUAD / "queries.jsonl"
QUESTIONS = 400
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds, one a search: as the client saw it, and as the server's Server-Timing header splits it."""

    name: str
    client: tuple[float, ...]
    stages: dict[str, tuple[float, ...]]


def questions(limit: int = QUESTIONS) -> list[str]:
    """Real questions, none twice, so that no cache answers: SQuAD's, as people type them."""
    lines = QUERIES.read_text().splitlines()
    return [json.loads(line)["text"] for line in lines[: limit * 3 : 3]]


@dataclass(frozen=True, slots=True)
class Server:
    client: httpx2.Client
    url: str
    pid: int


@contextmanager
def server(folder: Path, log: Path, **settings: str) -> Iterator[Server]:
    """A server in a process of its own, as a user starts it, on a free port; stopped at the end.

    Raises SystemExit with the end of its log if it ends, or is not ready within START_S.
    """
    env = os.environ | {
        "REFDESK_DATA_DIR": str(folder),
        "REFDESK_PORT": "0",
        "REFDESK_KEYS_REQUIRED": "false",
        **settings,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "server", "serve"], env=env, stdout=output, stderr=output)
    try:
        if (url := _ready(process, folder)) is None:
            raise SystemExit(f"the server did not become ready; the end of its log: {log.read_text()[-2000:]}")
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield Server(client, url, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ready(process: subprocess.Popen[bytes], folder: Path) -> str | None:
    """Where the process serves, once it does; None if it ends before. The lock of its folder says where, so that no
    other server is measured in its place."""
    end = time.perf_counter() + START_S
    while process.poll() is None and time.perf_counter() < end:
        holder = holder_of(folder)
        if holder is not None and holder.pid == process.pid and holder.url is not None and _answers(holder.url):
            return holder.url
        time.sleep(0.1)
    return None


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready").status_code == 200
    except httpx2.TransportError:  # it may end meanwhile
        return False


def ask(url: str, name: str, asked: Iterable[str], **extra: object) -> Timed:
    """One search after another on one connection; every reply must hold its hits.

    The client is the standard library's: of what it measures httpx takes 0.6 ms more, on the server's cores.
    """
    client_ms, stages = [], []
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
        for question in asked:
            body = json.dumps({"question": question, "collection": "docs", **extra})
            started = time.perf_counter()
            connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = reply.read()
            client_ms.append((time.perf_counter() - started) * 1e3)
            if reply.status != 200 or not (found := json.loads(answer))["hits"]:
                raise SystemExit(f"search failed: {reply.status} {answer[:300].decode()}")
            stages.append(_server_timing(reply.headers["server-timing"]) | found["timings_ms"])
    keys = sorted(set().union(*stages))
    return Timed(name, tuple(client_ms), {key: tuple(s.get(key, 0.0) for s in stages) for key in keys})


def _server_timing(header: str) -> dict[str, float]:
    """`total;dur=5.1, own;dur=1.2` → {"server total": 5.1, "server own": 1.2}."""
    parts = (part.strip().split(";dur=") for part in header.split(","))
    return {f"server {name}": float(duration) for name, duration in parts}


def table(title: str, runs: Sequence[Timed]) -> Table:
    out = Table("", "n", "p50 ms", "p95 ms", "p99 ms", title=title)
    for run in runs:
        out.add_row(run.name, str(len(run.client)), *_percentiles(run.client))
        for stage, values in run.stages.items():
            if stage.startswith("server") or stage in {"embed", "dense", "bm25", "rerank", "read"}:
                out.add_row(f"  {stage}", "", *_percentiles(values))
    return out


def _percentiles(values: Sequence[float]) -> list[str]:
    return [f"{np.percentile(values, p):.2f}" for p in (50, 95, 99)]


@contextmanager
def ingestion(folder: Path, documents: Path) -> Iterator[None]:
    """`refdesk ingest` beside the running server, into another namespace, for as long as the block lasts."""
    env = os.environ | {"REFDESK_DATA_DIR": str(folder)}
    ingest = [sys.executable, "-m", "server", "ingest", "--namespace", "beside"]
    with tempfile.TemporaryDirectory() as other:  # what an earlier run left would be unchanged, and cost nothing
        Path(other, "other.txt").write_text("What the namespace holds before it is measured.")
        subprocess.run([*ingest, other, "--prune"], env=env, check=True, capture_output=True)
    process = subprocess.Popen([*ingest, str(documents)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        time.sleep(5)
        yield
        if process.poll() is not None:
            assert process.stderr is not None
            raise SystemExit(f"the ingestion ended before the searches did: {process.stderr.read().decode()[-800:]}")
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DESK)
    parser.add_argument("--beside", type=Path, default=Path("../shared/data/squad/corpus.jsonl"))
    parser.add_argument("--chunk-tokens", type=int, default=0, help="of the ingestion's chunks; 0: as by default")
    arguments = parser.parse_args()
    command.needs_desk(arguments.folder)
    command.needs(QUERIES, arguments.beside)
    asked = questions()
    warm, first, second = asked[:20], asked[20:270], asked[270:]
    runs = []
    settings = {"REFDESK_CHUNK_TOKENS": str(arguments.chunk_tokens)}
    with server(arguments.folder, Path(".cache/latency.log"), **settings) as running:
        ask(running.url, "warm", warm, rerank=False)
        runs.append(ask(running.url, "no rerank", first, rerank=False))
        runs.append(ask(running.url, "late interaction, depth 50", second, rerank=True))
        with ingestion(arguments.folder, arguments.beside):
            runs.append(ask(running.url, "no rerank, beside an ingestion", [q + "?" for q in first], rerank=False))
    Console().print(table(f"search over HTTP, one client, {arguments.folder}", runs))


if __name__ == "__main__":
    command.run(main)
