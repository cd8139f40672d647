"""A real Qdrant: the server that QDRANT_URL names, or a `qdrant` program (on PATH, or named by QDRANT_BIN) that is
started here. Several of its nodes make a cluster."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from indexers.qdrant_server import QdrantServer
from tests.live.servers import Server, free_port, skip_without


@dataclass(frozen=True)
class Node:
    """A server that was started here: how it is reached, and the process behind it."""

    reached: QdrantServer
    process: Server
    p2p_port: int = 0


@contextmanager
def node(folder: Path, *, name: str = "qdrant", **settings: str) -> Iterator[Node]:
    """A node with its data under `folder`; of a setting's name `__` stands for the dot."""
    with _node(folder, [], name, settings) as started:
        started.process.start()
        yield started


@contextmanager
def cluster(folder: Path, size: int, **settings: str) -> Iterator[list[Node]]:
    """Nodes that know each other; the first has made the cluster."""
    with ExitStack() as running:
        nodes: list[Node] = []
        for number in range(size):
            port = free_port()
            place = ["--uri", f"http://127.0.0.1:{port}"]
            if nodes:
                place += ["--bootstrap", f"http://127.0.0.1:{nodes[0].p2p_port}"]
            given = {**settings, "cluster__enabled": "true", "cluster__p2p__port": str(port)}
            started = running.enter_context(_node(folder / str(number), place, f"qdrant-{number}", given))
            started.process.start()
            nodes.append(started)
        yield nodes


@contextmanager
def _node(folder: Path, place: Sequence[str], name: str, settings: dict[str, str]) -> Iterator[Node]:
    program = shutil.which(os.environ.get("QDRANT_BIN", "qdrant"))
    if program is None:
        program = skip_without("a qdrant to start (on PATH, or named by QDRANT_BIN)")
    http_port, grpc_port = free_port(), free_port()
    url = f"http://127.0.0.1:{http_port}"
    chosen = {
        "service__host": "127.0.0.1",
        "service__http_port": str(http_port),
        "service__grpc_port": str(grpc_port),
        "storage__storage_path": str(folder / "storage"),
        "storage__snapshots_path": str(folder / "snapshots"),
        "log_level": "WARN",
        **settings,
    }
    environment = {f"QDRANT__{setting.upper()}": value for setting, value in chosen.items()}
    command = [program, "--disable-telemetry", *place]
    process = Server(name, command, folder, lambda: _is_ready(url), environment)
    try:
        yield Node(QdrantServer(url, grpc_port), process, int(settings.get("cluster__p2p__port", 0)))
    finally:
        process.stop()


def _is_ready(url: str) -> bool:
    with urlopen(f"{url}/readyz", timeout=5) as answer:
        return bool(answer.status == 200)


@contextmanager
def qdrant(folder: Path) -> Iterator[QdrantServer]:
    """How a server is reached: the one that QDRANT_URL names (with QDRANT_GRPC_PORT and QDRANT_API_KEY where they are
    needed), else one started here."""
    url = os.environ.get("QDRANT_URL")
    if url:
        yield QdrantServer(url, int(os.environ.get("QDRANT_GRPC_PORT", "6334")), os.environ.get("QDRANT_API_KEY"))
        return
    with cluster(folder, 1) as (started,):
        yield started.reached


def need_cluster(server: QdrantServer) -> None:
    """Skip the test if the server, which QDRANT_URL names then, runs by itself: it knows no shards by key."""
    request = Request(f"{server.url}/cluster", headers={"api-key": server.api_key} if server.api_key else {})
    with urlopen(request, timeout=30) as answer:
        if json.load(answer)["result"]["status"] != "enabled":
            pytest.skip("needs a Qdrant in distributed mode, which the one at QDRANT_URL is not")


def new_prefix() -> str:
    return f"refdesk-test-{uuid4().hex[:8]}-"


async def remove_collections(server: QdrantServer, prefix: str) -> None:
    """Remove what the tests made under a prefix."""
    client = server.client()
    for one in (await client.get_collections()).collections:
        if one.name.startswith(prefix):
            await client.delete_collection(one.name)
    await client.close()


@asynccontextmanager
async def opened(server: QdrantServer, options: QdrantOptions) -> AsyncIterator[QdrantIndex]:
    """An index with a client of its own; its collections are removed at the end."""
    index = QdrantIndex.on(server.client(), options)
    try:
        yield index
    finally:
        await index.close()
        await remove_collections(server, options.prefix)
