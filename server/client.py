"""The HTTP API as the command line speaks it: to the server that holds the data folder, or to an app in this process.

One client for both: a command that finds the folder free opens it and talks to its own app through `InProcess`.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx2
import orjson

from server.lock import holder_of
from server.settings import Settings

Json = dict[str, Any]
INGEST = "refdesk ingest"


class ReplyError(Exception):
    """The server refused; message and code are its own. `is_callers`: for what was asked, not for how it stands."""

    def __init__(self, message: str, status: int = 500, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.is_callers = 400 <= status < 500 and status != 429


class DeskClient:
    """The routes that commands use. Raises ReplyError with the server's message."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, body: object = None, **params: object) -> Json:
        """One request, one JSON object."""
        given = {name: str(value) for name, value in params.items() if value is not None}
        response = await self._http.request(method, path, json=body, params=given)
        return _checked(response.status_code, response.content)

    async def events(self, path: str, body: object) -> AsyncIterator[Json]:
        """The server-sent events of a POST, until `[DONE]` or the end."""
        async with self._http.stream("POST", path, json=body) as response:
            if response.status_code >= 400:
                _checked(response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield _checked(200, line[len("data: ") :].encode())


def _checked(status: int, content: bytes) -> Json:
    try:
        reply = cast(Json, orjson.loads(content))
    except orjson.JSONDecodeError:
        raise ReplyError(f"the server answered {status} with something that is not refdesk's") from None
    if "error" in reply:
        raise ReplyError(reply["error"]["message"], status, reply["error"].get("code"))
    return reply


@asynccontextmanager
async def open_client(settings: Settings, command: str) -> AsyncIterator[DeskClient]:
    """A client of whoever holds the data folder: a running server, else this process for as long as it lasts.

    Raises DataFolderHeldError if the holder has no server to talk to.
    """
    holder = holder_of(settings.data_dir)
    if holder is not None and holder.url and holder.token:
        async with _http(holder.url, holder.token, httpx2.AsyncHTTPTransport()) as http:
            yield DeskClient(http)
        return
    # Imported here: a command that finds a server needs neither the web framework nor the engines.
    from server.app import create_app
    from server.build import build
    from server.in_process import InProcess
    from server.sweeper import sweep_once

    desk = await build(settings, command=command)
    try:
        token = secrets.token_urlsafe(32)
        async with _http("http://refdesk", token, InProcess(create_app(desk, local_token=token))) as http:
            yield DeskClient(http)
        if command == INGEST:  # a server sweeps by itself; a desk that is used without one is swept here
            is_local = not settings.originals_url  # a bucket is listed by requests: a server does that once a day
            await sweep_once(desk.catalog, desk.writer, desk.originals, orphans=is_local)
    finally:
        await desk.close()


def _http(url: str, token: str, transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        transport=transport,
        timeout=httpx2.Timeout(10.0, read=None),
        trust_env=False,  # a proxy of the environment is not for this machine's own server
    )
