"""An open-loop load on a server of its own: requests start when they are due, whether earlier ones have ended or not.

Latency counts from the instant a request was due, so a server that stalls cannot hide it (coordinated omission).
`python -m eval.load` runs search, chat and a mix beside an ingestion; `--limit` seeks the highest rate that holds.
Chats ask what was written about the corpora that `eval.corpus` begins with: what no document answers is not generated.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import httpx2
import numpy as np
from rich.console import Console
from rich.table import Table

from eval import command
from eval.corpus import CHUNK_TOKENS, DESK
from eval.latency import QUERIES, ingestion, server
from eval.load_page import Line, write_page
from eval.start import proportional_mib

LIMIT_MS = 300.0  # p95 of retrieval (SPEC §12)
OUTPUT = Path(".cache/eval/load")
ASKED_IN_CHATS = Path("../shared/data/chunking/questions.jsonl")
_WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """`is_refusal`: of a chat, whether its answer says that the documents hold none; None: of nothing else."""

    status: int  # of HTTP; 0: no answer
    is_refusal: bool | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: seconds after the run's start when it was due, and milliseconds from then to its last byte."""

    due_s: float
    latency_ms: float
    status: int
    is_refusal: bool | None = None
    way: str = ""  # of a mix


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw. `memory`: (seconds, MiB of proportional set size) of the server, once a second.

    A request is turned away (HTTP 429) if the server's queue is full; a chat is answered with a refusal (HTTP 200) if
    the documents hold no answer.
    """

    name: str
    rate: float  # requests a second that were due
    seconds: float  # from the run's start to the last answer
    samples: tuple[Sample, ...]
    memory: tuple[tuple[float, float], ...]

    @property
    def answered(self) -> list[float]:
        return [sample.latency_ms for sample in self.samples if sample.status == 200]

    @property
    def answered_per_second(self) -> float:
        """Over the time in which requests came, or to the last answer if that came later."""
        return len(self.answered) / max(self.seconds, len(self.samples) / self.rate)

    @property
    def turned_away(self) -> int:
        """Requests that found the server's queue full."""
        return sum(sample.status == 429 for sample in self.samples)

    @property
    def refusals(self) -> str:
        """How many of the chats' answers are refusals, for people; empty without chats."""
        answers = [sample.is_refusal for sample in self.samples if sample.is_refusal is not None]
        return f"{sum(answers)} of {len(answers)}" if answers else ""

    @property
    def failed(self) -> int:
        return sum(sample.status not in {200, 429} for sample in self.samples)

    def percentile(self, q: float) -> float:
        """Milliseconds, of the answered requests; infinite if there are none."""
        return float(np.percentile(self.answered, q)) if self.answered else float("inf")

    @property
    def holds(self) -> bool:
        """Whether p95 stays under LIMIT_MS with every request answered."""
        return self.percentile(95) < LIMIT_MS and len(self.answered) == len(self.samples)

    @property
    def by_way(self) -> list["Load"]:
        """A load for each way of a mix, since a search's latency and a chat's have nothing in common; else this one."""
        ways = list(dict.fromkeys(sample.way for sample in self.samples))
        if len(ways) < 2:
            return [self]
        parts = {way: tuple(sample for sample in self.samples if sample.way == way) for way in ways}
        return [
            replace(self, name=f"{self.name}: {way}", rate=self.rate * len(part) / len(self.samples), samples=part)
            for way, part in parts.items()
        ]


Send = Callable[[str], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Way:
    """A kind of request, and the questions that it asks."""

    name: str
    send: Send
    asked: Iterator[str]


def arrivals(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """When requests are due: a Poisson process given its count, whose instants are uniform. The count is the rate's own
    (to half a request), so that the rate that a table names was due. The same for the same seed."""
    due = np.random.default_rng(seed).uniform(0, seconds, round(rate * seconds))
    return [float(at) for at in np.sort(due)]


def questions(file: Path, field: str) -> Iterator[str]:
    """A JSONL file's questions, without end and none twice, so that no cache answers."""
    asked = [json.loads(line)[field] for line in file.read_text().splitlines()]
    for lap in count():
        for question in asked:
            yield f"{question} ({lap})" if lap else question


async def run(name: str, rate: float, seconds: float, ways: Sequence[Way], pid: int) -> Load:
    """One run; request i goes by the i-th way in turn. All answers are awaited."""
    started = time.perf_counter()
    memory: list[tuple[float, float]] = []

    async def one(due: float, way: Way) -> Sample:
        question = next(way.asked)
        await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
        try:
            reply = await way.send(question)
        except httpx2.TransportError:
            reply = Reply(0)
        return Sample(due, (time.perf_counter() - started - due) * 1e3, reply.status, reply.is_refusal, way.name)

    async def watch() -> None:
        while True:
            memory.append((time.perf_counter() - started, await asyncio.to_thread(proportional_mib, pid)))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    try:
        samples = await asyncio.gather(
            *(one(due, ways[i % len(ways)]) for i, due in enumerate(arrivals(rate, seconds)))
        )
    finally:
        watching.cancel()
    return Load(name, rate, time.perf_counter() - started, tuple(samples), tuple(memory))


def search(client: httpx2.AsyncClient, *, rerank: bool) -> Send:
    async def send(question: str) -> Reply:
        body = {"question": question, "collection": "docs", "rerank": rerank}
        return Reply((await client.post("/v1/search", json=body)).status_code)

    return send


def chat(client: httpx2.AsyncClient) -> Send:
    async def send(question: str) -> Reply:
        messages = [{"role": "user", "content": question}]
        response = await client.post("/v1/chat/completions", json={"model": "docs", "messages": messages})
        if response.status_code != 200:
            return Reply(response.status_code)
        return Reply(200, response.json()["refdesk"]["refused"])

    return send


async def highest_rate(attempt: Callable[[float], Awaitable[Load]], first: float = 4.0) -> tuple[float, list[Load]]:
    """The highest rate that holds, within a tenth: doubled until one does not, then halved in between."""
    low, high, runs = 0.0, first, []
    while True:
        runs.append(await attempt(high))
        if not runs[-1].holds:
            break
        low, high = high, 2 * high
    while high - low > 0.1 * high and high > 0.5:
        middle = (low + high) / 2
        runs.append(await attempt(middle))
        low, high = (middle, high) if runs[-1].holds else (low, middle)
    return low, runs


async def measure(folder: Path, url: str, pid: int, arguments: argparse.Namespace) -> list[Load]:
    """All runs asked for, on a running server."""
    asked, asked_in_chats = questions(QUERIES, "text"), questions(ASKED_IN_CHATS, "question")
    runs: list[Load] = []
    limits = httpx2.Limits(max_connections=1024, max_keepalive_connections=256)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        plain = Way("search, no rerank", search(client, rerank=False), asked)
        reranked = Way("search", search(client, rerank=True), asked)
        answered = Way("chat", chat(client), asked_in_chats)
        await run("warm", _WARM_UP, 1, [plain], pid)
        if arguments.limit:
            for way in (plain, reranked):

                def attempt(rate: float, way: Way = way) -> Awaitable[Load]:
                    return run(way.name, rate, arguments.seconds, [way], pid)

                rate, tried = await highest_rate(attempt)
                runs += [replace(load, name=f"{way.name}: {'holds' if load.holds else 'too fast'}") for load in tried]
                Console().print(f"{folder}: {way.name} holds p95 < {LIMIT_MS:g} ms up to {rate:.3g} a second")
            return runs
        await run("warm", _WARM_UP, 1, [answered], pid)
        for way in (reranked, answered):
            runs.append(await run(way.name, arguments.rate, arguments.seconds, [way], pid))
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, ingestion(folder, arguments.beside))
            name, mix = "3 searches to 1 chat, beside an ingestion", [*[reranked] * 3, answered]
            runs.append(await run(name, arguments.rate, arguments.seconds, mix, pid))
    return runs


def table(title: str, runs: Sequence[Load]) -> Table:
    """A row for each way of each run. The memory is the server's, whatever the way."""
    heads = ("p50 ms", "p95 ms", "p99 ms", "HTTP 429", "failed", "refused answers", "MiB, first to last")
    out = Table("", "due/s", "answered/s", *heads, title=title)
    for load in _by_way(runs):
        percentiles = (f"{load.percentile(q):.0f}" for q in (50, 95, 99))
        memory = f"{load.memory[0][1]:.0f} to {load.memory[-1][1]:.0f}" if load.memory else ""
        rates = (f"{load.rate:.3g}", f"{load.answered_per_second:.1f}")
        counts = (str(load.turned_away), str(load.failed), load.refusals)
        out.add_row(load.name, *rates, *percentiles, *counts, memory)
    return out


def _by_way(runs: Sequence[Load]) -> list[Load]:
    return [part for load in runs for part in load.by_way]


def said(load: Load) -> str:
    """What became of a run's requests, in a sentence or two."""
    counts = f"{len(load.answered)} answered, {load.turned_away} turned away (HTTP 429), {load.failed} failed."
    return f"{counts} Refused answers: {load.refusals}." if load.refusals else counts


def save(title: str, runs: Sequence[Load]) -> Path:
    """The samples as JSON and a page with the plots, under OUTPUT; returns the page."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    name = title.replace(" ", "-").replace("/", "-").strip("-.")
    (OUTPUT / f"{name}.json").write_text(json.dumps([asdict(load) for load in runs]))
    latencies = [
        Line(load.name, tuple((s.due_s, s.latency_ms) for s in load.samples), said(load)) for load in _by_way(runs)
    ]
    memory = [Line(load.name, load.memory) for load in runs]
    return write_page(OUTPUT / f"{name}.html", title, latencies, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DESK)
    parser.add_argument("--rate", type=float, default=5.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long requests keep coming, each run")
    parser.add_argument("--limit", action="store_true", help="seek the highest rate that holds p95 < 300 ms")
    parser.add_argument("--beside", type=Path, default=Path("../shared/data/scifact/corpus.jsonl"))
    parser.add_argument("--chunk-tokens", type=int, default=CHUNK_TOKENS)
    arguments = parser.parse_args()
    command.needs_desk(arguments.folder)
    command.needs(QUERIES, ASKED_IN_CHATS, arguments.beside)
    log, settings = Path(".cache/load.log"), {"REFDESK_CHUNK_TOKENS": str(arguments.chunk_tokens)}
    with server(arguments.folder, log, **settings) as running:
        runs = asyncio.run(measure(arguments.folder, running.url, running.pid, arguments))
    title = f"{'limit' if arguments.limit else 'load'} {arguments.folder.name}"
    Console().print(table(title, runs))
    print(f"plots: {save(title, runs)}")


if __name__ == "__main__":
    command.run(main)
