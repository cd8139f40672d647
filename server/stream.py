"""Work for a client that may leave: a leaving client cancels it, wherever it is; and server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


async def unless_left(receive: Receive, work: Coroutine[object, object, T]) -> T:
    """The result of `work`, which is cancelled if the client leaves first. Raises ClientDisconnect then."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _stop(task, gone)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(*tasks: "asyncio.Task[object]") -> None:
    """Cancel what still runs and wait until it has cleaned up."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None


class Feed:
    """Pieces of a reply from a generator that runs, and is closed, in one task of its own; cancelled if the client
    leaves. What it makes faster than it is read waits in memory: an answer is bounded by its max_tokens.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], receive: Receive) -> None:
        self._queue: asyncio.Queue[bytes | _End] = asyncio.Queue()
        self._first: bytes | _End | None = None
        self._pump = asyncio.create_task(self._run(pieces))
        self._watch = asyncio.create_task(self._leave(receive))

    async def _run(self, pieces: AsyncGenerator[bytes, None]) -> None:
        end = _End(ClientDisconnect())
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    self._queue.put_nowait(piece)
            end = _End(None)
        except Exception as exc:
            end = _End(exc)
        finally:
            self._queue.put_nowait(end)

    async def _leave(self, receive: Receive) -> None:
        await _left(receive)
        self._pump.cancel()

    async def opened(self) -> Self:
        """This feed, once it has a piece; an error that comes before it is raised here, while a status can be sent."""
        try:
            self._first = await self._queue.get()
            if isinstance(self._first, _End) and self._first.error is not None:
                raise self._first.error
        except BaseException:
            await self.aclose()
            raise
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        item, self._first = self._first or await self._queue.get(), None
        if not isinstance(item, _End):
            return item
        raise item.error or StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the generator, wherever it is, and wait until it is closed."""
        await _stop(self._pump, self._watch)


class EventStream(Response):
    """Server-sent events. An error after the first is told in the stream; a client that leaves ends it."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, on_error: Callable[[Exception], bytes]) -> None:
        self.feed, self.on_error = feed, on_error
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.feed):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for event in self.feed:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except ClientDisconnect:
                return
            except Exception as exc:
                await send({"type": "http.response.body", "body": self.on_error(exc), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_line(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"
