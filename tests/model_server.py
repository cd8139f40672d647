"""A small model server over TCP, in OpenAI's shapes: it repeats the prompt's first sentence, a word at a time.

It behaves badly when told to (`Conduct`): what a real server does only when it is overloaded, breaks or hangs. vLLM
itself stands behind the same tests in tests/live.
"""

import asyncio
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio.from_thread
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from models.base import GenerationOptions, GeneratorInfo
from models.fake_generator import _TOKEN
from models.saying import Piece, say

S = TypeVar("S", bound="AppServer")
MODEL, ADAPTER, LENGTH = "parrot", "parrot-legal", 4096


@dataclass
class Conduct:
    """What the server does next, and what it has seen."""

    fail: deque[Response | str] = field(default_factory=deque)  # of the next completions: a reply, "cut" or "hang"
    word_s: float = 0.0
    is_loading: bool = False
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    tokenized: int = 0
    running: int = 0
    max_running: int = 0


def app(conduct: Conduct) -> Starlette:
    async def models(request: Request) -> Response:
        if conduct.is_loading:
            return JSONResponse({"error": {"message": "loading"}}, 503)
        conduct.keys.append(request.headers.get("authorization"))
        listed = [{"id": MODEL, "max_model_len": LENGTH, "parent": None}, {"id": ADAPTER, "parent": MODEL}]
        return JSONResponse({"object": "list", "data": listed})

    async def tokenize(request: Request) -> Response:
        body = orjson.loads(await request.body())
        conduct.tokenized += 1
        if "prompt" in body:
            return JSONResponse({"count": len(_TOKEN.findall(body["prompt"]))})
        return JSONResponse({"count": _count(body["messages"])})

    async def chat(request: Request) -> Response:
        body = orjson.loads(await request.body())
        conduct.seen.append(body)
        fault = conduct.fail.popleft() if conduct.fail else None
        if isinstance(fault, Response):
            return fault
        if fault == "hang":
            await asyncio.sleep(60)
        if _count(body["messages"]) + body["max_completion_tokens"] > LENGTH:
            message = f"This model's maximum context length is {LENGTH} tokens."
            return JSONResponse({"error": {"message": message, "code": 400}}, 400)
        return StreamingResponse(_events(conduct, body, cut=fault == "cut"), media_type="text/event-stream")

    routes = [
        Route("/v1/models", models),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    return Starlette(routes=routes)


def _count(messages: list[dict[str, str]]) -> int:
    return sum(len(_TOKEN.findall(m["content"])) + 2 for m in messages) + 1


async def _events(conduct: Conduct, body: dict[str, Any], *, cut: bool) -> AsyncIterator[bytes]:
    options = GenerationOptions(max_tokens=body["max_completion_tokens"], stop=tuple(body.get("stop", ())))
    info = GeneratorInfo(MODEL, "f", 10**6, is_language_model=True)
    prompt_tokens = _count(body["messages"])

    async def pieces() -> Any:
        lines = body["messages"][-1]["content"].split("\n")
        for word in _TOKEN.findall(lines[-1] if body["model"] == ADAPTER else lines[0].split(". ")[0]):
            await asyncio.sleep(conduct.word_s)
            yield Piece(word, 1)

    conduct.running += 1
    conduct.max_running = max(conduct.max_running, conduct.running)
    try:
        yield _line({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        async for delta in say(pieces(), options, prompt_tokens=prompt_tokens, info=info):
            choice = {"delta": {"content": delta.text}, "finish_reason": delta.finish_reason}
            if cut and delta.text:
                return
            yield _line({"choices": [choice]})
            if usage := delta.usage:
                counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
                yield _line({"choices": [], "usage": counts})
        yield b"data: [DONE]\n\n"
    finally:
        conduct.running -= 1


def _line(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"


@dataclass
class AppServer:
    """A running app; `stop` ends it as a crash would, `start` brings it back on the same port."""

    app: ASGIApp
    port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(self.app, lifespan="off", log_config=None, timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: anyio.run(self._serve, listener))
        self._thread.start()
        while not self._server.started:
            threading.Event().wait(0.01)

    async def _serve(self, listener: socket.socket) -> None:
        assert self._server
        await self._server.serve(sockets=[listener])
        listener.close()

    def stop(self) -> None:
        if self._server and self._thread:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
            self._server = None


class ModelServer(AppServer):
    def __init__(self, conduct: Conduct) -> None:
        super().__init__(app(conduct))
        self.conduct = conduct


@contextmanager
def running(server: S) -> Iterator[S]:
    """The server, started, and stopped in the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def model_server(**conduct: Any) -> Iterator[ModelServer]:
    with running(ModelServer(Conduct(**conduct))) as server:
        yield server
