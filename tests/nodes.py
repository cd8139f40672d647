"""A model node for tests: refdesk's own app with the deterministic models, over TCP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.from_thread

from models.base import Reranker
from models.remote import Remote
from models.retry import Backoff
from server.app import create_node_app
from server.build import build_node
from server.node import NodeKey
from server.settings import Settings
from tests.model_server import AppServer, running

KEY = "key-of-the-node"


def node_settings(data_dir: Path, **overrides: Any) -> Settings:
    key_file = data_dir / "node.key"
    key_file.write_text(f"{KEY}\n")
    return Settings(data_dir=data_dir, role="models", node_key_file=key_file, embedder="fake", **overrides)


@contextmanager
def model_node(data_dir: Path, reranker: Reranker | None = None, **overrides: Any) -> Iterator[AppServer]:
    """A running node; `reranker` in place of the one that the settings name."""
    with anyio.from_thread.start_blocking_portal() as portal:
        node = portal.call(build_node, node_settings(data_dir, **overrides))
        node = replace(node, reranker=reranker or node.reranker)
        with running(AppServer(create_node_app(node, NodeKey(KEY)))) as server:
            yield server
        portal.call(node.close)


def remote_of(server: AppServer, key: str | None = KEY) -> Remote:
    remote = Remote("embedder 'fake'", [server.url], hint="see embedder_urls", api_key=key)
    remote.backoff = Backoff(base_s=0.01)
    return remote
