"""Requests to an ASGI app in this process, their replies streamed (httpx2's own transport gathers them whole)."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping

import httpx2
from starlette.types import ASGIApp, Message


class InProcess(httpx2.AsyncBaseTransport):
    """A transport of httpx2; a reply that is closed early looks to the app like a client that left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(await request.aread())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port),
            "client": ("127.0.0.1", os.getpid()),
            "root_path": "",
        }
        exchange.task = asyncio.create_task(self._run(scope, exchange))
        start = await exchange.messages.get()
        if start["type"] != "http.response.start":
            await exchange.task  # raises what the app raised
        return httpx2.Response(start["status"], headers=start["headers"], stream=exchange)

    async def _run(self, scope: Mapping[str, object], exchange: "_Exchange") -> None:
        try:
            await self._app(dict(scope), exchange.receive, exchange.send)
        finally:
            exchange.messages.put_nowait({"type": "end"})


class _Exchange(httpx2.AsyncByteStream):
    """One request's messages; as a stream, the reply's body."""

    def __init__(self, body: bytes) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self._body: bytes | None = body
        self._left = asyncio.Event()

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.messages.get())["type"] != "end":
            yield message.get("body", b"")

    async def aclose(self) -> None:
        self._left.set()
        if self.task is not None:
            await asyncio.wait({self.task})
