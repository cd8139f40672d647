"""Requests to a Pinecone index: plain HTTP, repeated where that helps, every failure translated.

Not by Pinecone's client: that has retries of its own, which would multiply ours.
"""

from collections.abc import Mapping
from typing import Any, cast

import httpx2
import orjson

from indexers.base import IndexerError, IndexUnavailableError, InvalidPointError, NamespaceNotFoundError
from indexers.retry import Retries, wait_of_status

API_VERSION = "2025-10"  # the first with fetch, update and delete by metadata
_REQUEST_LSN, _INDEXED_LSN = "x-pinecone-request-lsn", "x-pinecone-max-indexed-lsn"

Json = Mapping[str, object]


class Reply:
    """An answer's content, and how far the index had got: log sequence numbers, None where the server says none."""

    __slots__ = ("content", "indexed_lsn", "written_lsn")

    def __init__(self, response: httpx2.Response) -> None:
        self.content = cast("dict[str, Any]", orjson.loads(response.content or b"{}"))
        self.written_lsn = _number(response.headers.get(_REQUEST_LSN))
        self.indexed_lsn = _number(response.headers.get(_INDEXED_LSN))


class MissingError(NamespaceNotFoundError):
    """Pinecone knows no such namespace."""


class PineconeHttp:
    """The data plane of one index. `url` is the index's host, with its scheme."""

    def __init__(self, url: str, api_key: str, *, timeout_s: float, retries: Retries) -> None:
        headers = {"Api-Key": api_key, "X-Pinecone-Api-Version": API_VERSION, "Content-Type": "application/json"}
        # trust_env: what is sent goes to the host that the settings name, past any proxy that the environment does
        self._client = httpx2.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, trust_env=False)
        self._retries = retries
        self._is_closed = False

    async def get(self, path: str, **parameters: str | int | list[str]) -> Reply:
        return await self._send("GET", path, b"", parameters)

    async def delete(self, path: str) -> Reply:
        return await self._send("DELETE", path, b"", {})

    async def post(self, path: str, content: Json | bytes) -> Reply:
        body = content if isinstance(content, bytes) else orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        return await self._send("POST", path, body, {})

    async def close(self) -> None:
        self._is_closed = True
        await self._client.aclose()

    def check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    async def _send(
        self, method: str, path: str, body: bytes, parameters: Mapping[str, str | int | list[str]]
    ) -> Reply:
        self.check_open()

        async def request() -> Reply:
            response = await self._client.request(method, path, content=body or None, params=dict(parameters))
            response.raise_for_status()
            return Reply(response)

        try:
            return await self._retries.run(request, _wait_s)
        except (httpx2.HTTPError, httpx2.InvalidURL, orjson.JSONDecodeError) as exc:
            raise _translated(exc) from exc


def _wait_s(exc: Exception) -> float | None:
    match exc:
        case httpx2.HTTPStatusError():
            return wait_of_status(exc.response.status_code, exc.response.headers.get("retry-after"))
        case httpx2.TransportError():
            return 0.0
    return None


def _translated(exc: Exception) -> IndexerError:
    if not isinstance(exc, httpx2.HTTPStatusError):
        said = f"{type(exc).__name__}: {exc}"
        return IndexUnavailableError(f"Pinecone cannot be reached ({said}); check pinecone_url and the network")
    status, said = exc.response.status_code, _said(exc.response)
    match status:
        case 404:
            return MissingError(f"Pinecone finds nothing ({said})")
        case 400 | 422:
            return InvalidPointError(f"Pinecone refuses the request ({said})")
        case 401 | 403:
            return IndexUnavailableError(f"Pinecone refuses the key ({said}); check pinecone_api_key_file")
    return IndexUnavailableError(f"Pinecone failed with {status} ({said}); retry")


def _said(response: httpx2.Response) -> str:
    """The message in either of the shapes in which Pinecone puts it."""
    try:
        content = orjson.loads(response.content)
        error = content.get("error", content)
        said = str(error.get("message", "")) if isinstance(error, dict) else str(error)
    except (orjson.JSONDecodeError, AttributeError):
        said = ""
    return " ".join((said or response.reason_phrase or str(response.status_code)).split())[:300]


def _number(header: str | None) -> int | None:
    return int(header) if header and header.isdigit() else None
