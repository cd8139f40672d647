"""refdesk itself as processes of its own, as an operator runs them: several on one catalog and one Redis."""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from server.lock import holder_of
from tests.live.servers import Server, free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class App:
    """A running server process with the deterministic models, and a client that has this machine's token."""

    url: str
    server: Server
    data_dir: Path

    @contextmanager
    def http(self, key: str | None = None, timeout_s: float = 30) -> Iterator[httpx2.Client]:
        """`key` None: the token that commands on this machine use."""
        holder = holder_of(self.data_dir)
        assert holder is not None
        key = key or holder.token
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=self.url, headers=headers, timeout=timeout_s) as client:
            yield client

    def search(self, question: str, **fields: Any) -> dict[str, Any]:
        with self.http() as http:
            response = http.post("/v1/search", json={"question": question, **fields})
        assert response.status_code == 200, response.text
        reply: dict[str, Any] = response.json()
        return reply

    def send(self, files: Mapping[str, str], **fields: Any) -> str:
        """Upload in the background; the job's id."""
        parts = [("file", (name, text.encode())) for name, text in files.items()]
        with self.http() as http:
            response = http.post("/v1/documents", files=parts, data={"background": "true", **fields})
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def ended(self, id_: str, within_s: float = 120) -> dict[str, Any]:
        """A job, once it has ended."""
        until = time.monotonic() + within_s
        with self.http() as http:
            while time.monotonic() < until:
                job: dict[str, Any] = http.get(f"/v1/jobs/{id_}").json()
                if job["state"] in {"succeeded", "failed", "cancelled"}:
                    return job
                time.sleep(0.1)
        raise AssertionError(f"not ended within {within_s:g} s: {job}")

    def dies(self, within_s: float = 120) -> None:
        """Wait until the process, which a fault kills, is gone."""
        until = time.monotonic() + within_s
        while self.server.is_running:
            assert time.monotonic() < until, self.server.log_tail()
            time.sleep(0.05)
        self.server.kill()

    def metric(self, name: str) -> float:
        """A sample of /metrics by its name and labels as they stand there; 0 if there is none."""
        with self.http() as http:
            found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def new_app(folder: Path, settings: Mapping[str, object]) -> App:
    """`refdesk serve` over a folder of its own, not started yet."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    given = {"data_dir": folder / "data", "port": port, "embedder": "fake", "generator": "fake", **settings}
    environment = {f"REFDESK_{name.upper()}": str(value) for name, value in given.items()}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

    def is_ready() -> bool:
        try:
            return httpx2.get(f"{url}/ready", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False

    command = [sys.executable, "-m", "server", "serve"]
    server = Server("refdesk", command, folder, is_ready, {**environment, "PYTHONPATH": path})
    return App(url, server, folder / "data")


@contextmanager
def app(folder: Path, settings: Mapping[str, object]) -> Iterator[App]:
    """One that runs until the block ends."""
    made = new_app(folder, settings)
    with made.server:
        yield made
