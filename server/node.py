"""A model node: the same app with models alone. No catalog, no index, no data folder; one key, from a file."""

import hmac
from contextlib import AsyncExitStack
from dataclasses import dataclass

from models.base import Embedder, Reranker
from server.base import Principal, UnauthorizedError
from server.settings import Settings

CALLER = Principal("node", "another refdesk", frozenset({"read"}))


@dataclass(frozen=True, slots=True)
class Node:
    """A running model node: its models, and how to close them."""

    settings: Settings
    embedder: Embedder
    reranker: Reranker | None
    _opened: AsyncExitStack

    async def close(self) -> None:
        await self._opened.aclose()


class NodeKey:
    """The one key that a model node knows."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def principal(self, secret: str) -> Principal:
        """Raises UnauthorizedError for any other."""
        if not self._secret or not hmac.compare_digest(secret.encode(), self._secret):
            raise UnauthorizedError("this is not the node's key: the caller's api_key_file must hold the same")
        return CALLER
