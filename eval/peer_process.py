"""A compared program in a process of its own: commands in, figures out; or its HTTP server, and searches of it.

The far side is eval/runners/peer_run.py, run by the program's own Python.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from eval.peers import ROOT

RUNNER = Path(__file__).parent / "runners" / "peer_run.py"
_START_S = 900.0
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
    "REFDESK_CACHE_ENTRIES": "0",  # no question is asked twice, but refdesk's two rows ask the same ones
}


@dataclass(frozen=True, slots=True)
class Where:
    """What a process is started with. `model`: a folder, or for refdesk a built-in model's name."""

    system: str
    python: Path
    model: str
    folder: Path
    log: Path

    def command(self, *more: str) -> list[str]:
        return [str(self.python), "-W", "ignore", str(RUNNER), self.system, self.model, str(self.folder), *more]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REFDESK_"))}
        return kept | _QUIET | ({"PYTHONPATH": str(ROOT)} if self.system == "refdesk" else {})


class Program:
    """A running program, idle until asked. `versions` of its packages."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._log = where.log.open("w")
        self._process = subprocess.Popen(
            where.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=where.environment(),
        )
        self.versions: Mapping[str, str] = self._answer()["versions"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Run a command of peer_run.py. Raises SystemExit with the end of its log if it died of it."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._where.system} ended; the end of its log: {self._where.log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True, slots=True)
class Service:
    """A program's HTTP server. `start_s`: from its command to the first question answered."""

    system: str
    client: httpx2.Client
    pid: int
    start_s: float

    def search(self, questions: Sequence[str], top_k: int, warm: int, *, rerank: bool) -> list[float]:
        """One question after another; milliseconds of all but the first `warm`, as the client sees them.

        Raises SystemExit if one of them finds nothing.
        """
        taken = []
        for question in questions:
            started = time.perf_counter()
            reply = request(self.client, self.system, question, top_k, rerank=rerank)
            taken.append((time.perf_counter() - started) * 1e3)
            _check(self.system, question, reply)
        return taken[warm:]

    def peak_mib(self) -> float:
        """The most memory that the server has held at once, MiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def request(client: httpx2.Client, system: str, question: str, top_k: int, *, rerank: bool) -> httpx2.Response:
    """One search over HTTP in the form of the program's own API."""
    match system:
        case "refdesk":
            body = {"question": question, "collection": "docs", "top_k": top_k, "rerank": rerank}
            return client.post("/v1/search", json=body)
        case "txtai":
            return client.get("/search", params={"query": question, "limit": top_k})
        case "haystack":
            return client.post("/search/run", json={"question": question, "top_k": top_k})
        case _:
            return client.post("/search", params={"question": question, "top_k": top_k})


def _check(system: str, question: str, reply: httpx2.Response) -> None:
    """Raises SystemExit if the reply holds no hits."""
    if reply.status_code != 200:
        raise SystemExit(f"{system} answered {reply.status_code}: {reply.text[:500]}")
    found = reply.json()
    if not (found if isinstance(found, list) else found.get("hits") or found.get("result")):
        raise SystemExit(f"{system} found nothing for {question!r}: {reply.text[:500]}")


@contextmanager
def serve(where: Where, first: str) -> Iterator[Service]:
    """The program's server over what lies in the folder, once it has answered `first`; stopped at the end.

    Its port is one that nobody listens on. Raises SystemExit with the end of its log if it ends or never answers.
    """
    port = _free_port()
    started = time.perf_counter()
    with where.log.open("w") as log:
        process = subprocess.Popen(where.command(str(port)), stdout=log, stderr=log, env=where.environment())
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)
    try:
        while process.poll() is not None or not _answers(client, where.system, first):
            if process.returncode is not None or time.perf_counter() - started > _START_S:
                raise SystemExit(f"{where.system} does not serve; the end of its log: {where.log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield Service(where.system, client, process.pid, time.perf_counter() - started)
    finally:
        client.close()
        process.terminate()
        process.wait(60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def _answers(client: httpx2.Client, system: str, question: str) -> bool:
    try:
        return request(client, system, question, 10, rerank=False).status_code == 200
    except httpx2.TransportError:  # not listening yet
        return False
