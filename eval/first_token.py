"""Time to the first token of an answer, through refdesk and from vLLM directly with the very same prompt.

`python -m eval.first_token http://127.0.0.1:8000 MODEL`: asks each question once to fill vLLM's prefix cache, then both
ways in turn. What refdesk adds is its time to the first token less retrieval (which vLLM does not do) less vLLM's own.
"""

import argparse
import asyncio
import io
import json
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import numpy as np
from rich.console import Console
from rich.table import Table

from eval import command
from eval.latency import SQUAD, questions, server
from indexers.sources import Upload
from models.base import Delta, GenerationOptions, GeneratorInfo, Message, Prompt
from models.remote_generator import RemoteGenerator
from server.base import Answer, AnswerRequest, SearchRequest
from server.build import build
from server.client import Json
from server.ingest import Target
from server.settings import Settings

MAX_TOKENS = 4  # only the first counts
DOCUMENTS = 200
IDLE_S = 2.0  # before each request: vLLM's processes wait busily for a second after one, and take two cores for it


class Recorder:
    """Implements Generator over the remote one, keeping what it is asked."""

    def __init__(self, inner: RemoteGenerator) -> None:
        self.inner, self.bodies = inner, list[dict[str, object]]()

    @property
    def info(self) -> GeneratorInfo:
        return self.inner.info

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return await self.inner.count_tokens(texts)

    async def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        return await self.inner.count_prompt_tokens(messages)

    async def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        self.bodies.append(await self.inner.request_body(prompt, options))
        async for delta in self.inner.generate(prompt, options):
            yield delta

    async def close(self) -> None:
        await self.inner.close()


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds of one question: vLLM's first token directly; refdesk's, and what of it was retrieval."""

    direct: float
    ours: float
    retrieval: float

    @property
    def added(self) -> float:
        return self.ours - self.retrieval - self.direct


async def prompts(settings: Settings, asked: Sequence[str], count: int) -> list[tuple[str, dict[str, object]]]:
    """Ingest, and the requests that the first `count` questions lead to that are answered."""
    desk = await build(settings, command="eval.first_token")
    try:
        recorder = Recorder(desk.pipeline.models.generator)  # type: ignore[arg-type]
        desk.pipeline.models = replace(desk.pipeline.models, generator=recorder)
        await desk.pipeline.ingest(_documents(), Target(settings.collection, "default"))
        found: list[tuple[str, dict[str, object]]] = []
        for question in asked:
            recorder.bodies.clear()
            search = SearchRequest(question, settings.collection)
            request = AnswerRequest((Message("user", question),), search, max_tokens=MAX_TOKENS, temperature=0)
            async for event in desk.pipeline.answer(request):
                if isinstance(event, Answer) and recorder.bodies and not event.degraded:
                    found.append((question, recorder.bodies[0]))
            if len(found) == count:
                break
        return found
    finally:
        await desk.close()


def _documents() -> Iterator[Upload]:
    """The first of SQuAD's paragraphs, as one file."""
    lines = (SQUAD / "corpus.jsonl").read_bytes().splitlines(keepends=True)[:DOCUMENTS]
    yield Upload("squad.jsonl", io.BytesIO(b"".join(lines)))


async def measure(url: str, ours: httpx2.AsyncClient, vllm: str, asked: tuple[str, dict[str, object]]) -> Timed:
    """One question both ways, vLLM directly first."""
    question, body = asked
    await asyncio.sleep(IDLE_S)
    async with httpx2.AsyncClient(timeout=120) as http:
        direct, _ = await first_token(http, f"{vllm}/v1/chat/completions", body)
    chat = {
        "model": "docs",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
    }
    await asyncio.sleep(IDLE_S)
    whole, last = await first_token(ours, f"{url}/v1/chat/completions", chat)
    return Timed(direct, whole, last["refdesk"]["timings_ms"]["search"])


async def first_token(http: httpx2.AsyncClient, url: str, body: dict[str, object]) -> tuple[float, Json]:
    """Milliseconds until the first text of a streamed completion, and the last of its chunks with a choice."""
    started, first, last = time.perf_counter(), 0.0, {}
    async with http.stream("POST", url, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[len("data: ") :])
            for choice in chunk["choices"]:
                last = chunk
                if not first and choice["delta"].get("content"):
                    first = (time.perf_counter() - started) * 1e3
    return first, last


async def compare(arguments: argparse.Namespace) -> list[Timed]:
    """All questions, in rounds; the first round only warms both ways up."""
    with tempfile.TemporaryDirectory() as scratch:
        given = {"generator": arguments.model, "generator_urls": arguments.url}
        if arguments.vocabulary:
            given["generator_vocabulary"] = arguments.vocabulary
        settings = Settings(data_dir=Path(scratch), cache_entries=0, **given)
        asked = await prompts(settings, questions(2000), arguments.questions)
        if not asked:
            raise SystemExit(f"{arguments.url} gave no answer as model {arguments.model!r}: is vLLM there?")
        environment = {f"REFDESK_{name.upper()}": str(value) for name, value in given.items()}
        folder, log = Path(scratch), Path(scratch) / "server.log"
        timed: list[Timed] = []
        with server(folder, log, REFDESK_CACHE_ENTRIES="0", **environment) as running:
            async with httpx2.AsyncClient(timeout=120) as http:
                for round_ in range(arguments.rounds + 1):
                    found = [await measure(running.url, http, arguments.url, one) for one in asked]
                    timed += found if round_ else []
        return timed


def table(timed: Sequence[Timed]) -> Table:
    """Percentiles of each part."""
    made = Table(title=f"time to first token, {len(timed)} answers, ms")
    for heading in ("", "p50", "p95", "mean"):
        made.add_column(heading, justify="right" if heading else "left")
    rows = {
        "vLLM directly": [one.direct for one in timed],
        "refdesk, in all": [one.ours for one in timed],
        "of it retrieval": [one.retrieval for one in timed],
        "added after retrieval": [one.added for one in timed],
    }
    for name, values in rows.items():
        made.add_row(name, *(f"{x:.1f}" for x in (np.median(values), np.percentile(values, 95), np.mean(values))))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="vLLM's URL")
    parser.add_argument("model", help="the name it serves")
    parser.add_argument(
        "--vocabulary", type=Path, help="the model's folder or tokenizer.json; none: vLLM counts tokens"
    )
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    Console().print(table(asyncio.run(compare(parser.parse_args()))))


if __name__ == "__main__":
    command.run(main)
