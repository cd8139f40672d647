"""How fast the embedder is against sentence-transformers' default, on the same real passages in one run.

`python -m eval.embed`: alternating runs, the peer in an environment and a process of its own; prints a table, the ratio
and what the CPU can do. Also what a question takes alone and beside bulk work.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.peers import ROOT, peer_python
from models import cpu
from models.base import Passage, Tokenizer
from models.openvino import OpenVinoEmbedder
from models.store import ModelStore

_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
_QUESTION = "how often must the pump in the north hall be serviced"


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds by the clock, and of all cores together: the latter says more on a machine that others use too."""

    wall_s: float
    cpu_s: float


class Peer:
    """sentence-transformers with its defaults, in its own process, idle until asked."""

    def __init__(self, python: Path, folder: Path, passages: Sequence[str]) -> None:
        # -P: eval/ has a profile.py and a datasets.py, which would be taken for Python's own and for a library
        command = [str(python), "-P", str(Path(__file__).with_name("embed_peer.py")), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._ask(json.dumps(passages))

    def run(self) -> Run:
        """Embed every passage once."""
        wall, cpu = map(float, self._ask("run").split())
        return Run(wall, cpu)

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise SystemExit("sentence-transformers' process ended; its messages are above.")
        return answer


def passages_of(corpus: Path, tokenizer: Tokenizer, count: int, tokens: int) -> list[str]:
    """The first `tokens` tokens of each of the first documents that have so many: real text of one length."""
    passages = []
    for line in corpus.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"]
        cut = tokenizer.encode_batch([text])[0]
        if len(cut) >= tokens:
            passages.append(text[: int(cut.offsets[tokens - 1, 1])])
        if len(passages) == count:
            break
    return passages


async def _ours(embedder: OpenVinoEmbedder, passages: Sequence[str]) -> Run:
    start, cpu = time.perf_counter(), time.process_time()
    await embedder.embed_passages([Passage(text) for text in passages])
    return Run(time.perf_counter() - start, time.process_time() - cpu)


async def _question_ms(embedder: OpenVinoEmbedder, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        await embedder.embed_queries([_QUESTION])
        taken.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(0.005)
    return taken


async def _beside_bulk(embedder: OpenVinoEmbedder, passages: Sequence[str]) -> tuple[list[float], float]:
    """Questions' milliseconds while passages are embedded, and the passages a second meanwhile."""
    bulk = asyncio.create_task(_ours(embedder, passages))
    await asyncio.sleep(0.2)
    taken: list[float] = []
    while not bulk.done():
        taken += await _question_ms(embedder, 5)
    return taken, len(passages) / (await bulk).wall_s


async def _measure(arguments: argparse.Namespace) -> None:
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    embedder = OpenVinoEmbedder.load(folder, batch_tokens=arguments.batch_tokens)
    room = arguments.tokens - embedder.info.special_tokens
    passages = passages_of(arguments.corpus, embedder.tokenizer, arguments.passages, room)
    peer = Peer(peer_python("sentence-transformers", arguments.peer_python), folder.path, passages)
    await _ours(embedder, passages[:32])
    ours, theirs = [], []
    for _ in range(arguments.runs):
        theirs.append(peer.run())
        ours.append(await _ours(embedder, passages))
    peer.close()
    print(f"{len(passages)} passages of {arguments.tokens} tokens, {arguments.runs} alternating runs, {_cpu()}\n")
    _speed_table({peer.versions: theirs, f"refdesk, {embedder.info.precision}": ours}, len(passages))
    await _question_table(embedder, passages)
    await embedder.close()


def _speed_table(runs: Mapping[str, Sequence[Run]], passages: int) -> None:
    print("| | passages/s, median | each run | CPU ms a passage, least |\n|---|---|---|---|")
    medians, least = [], []
    for name, found in runs.items():
        rates = [passages / run.wall_s for run in found]
        medians.append(statistics.median(rates))
        least.append(min(run.cpu_s for run in found) / passages * 1e3)
        print(f"| {name} | {medians[-1]:.1f} | {', '.join(f'{rate:.1f}' for rate in rates)} | {least[-1]:.1f} |")
    print(f"\nratio of medians {medians[1] / medians[0]:.2f}, of CPU time {least[0] / least[1]:.2f}\n")


async def _question_table(embedder: OpenVinoEmbedder, passages: Sequence[str]) -> None:
    alone = await _question_ms(embedder, 100)
    beside, rate = await _beside_bulk(embedder, passages)
    print("| a question of 10 words | p50 ms | p95 ms |\n|---|---|---|")
    for name, taken in (("alone", alone), (f"beside bulk at {rate:.1f} passages/s", beside)):
        print(f"| {name} | {statistics.median(taken):.1f} | {statistics.quantiles(taken, n=20)[-1]:.1f} |")


def _cpu() -> str:
    """The processor's name and which of the instructions that matter it has."""
    flags = cpu.flags()
    has = ", ".join(flag for flag in _CPU_FLAGS if flag in flags) or "no known flags"
    return f"{os.cpu_count()} cores of {cpu.name()} with {has}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared/data/scifact/corpus.jsonl")
    parser.add_argument("--passages", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=220)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--peer-python", type=Path, help="a Python that has sentence-transformers already")
    arguments = parser.parse_args()
    if not arguments.corpus.is_file():
        sys.exit(f"no corpus at {str(arguments.corpus)!r}: name a BEIR corpus.jsonl with --corpus")
    asyncio.run(_measure(arguments))


if __name__ == "__main__":
    main()
