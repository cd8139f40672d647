"""A client that leaves cancels the work done for it, wherever that work is; errors keep their place in a stream."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from server.stream import EventStream, Feed, event_line, unless_left


class Client:
    """One side of an ASGI exchange: what it received, and when it leaves."""

    def __init__(self, leave_after: int | None = None) -> None:
        self.received: list[bytes] = []
        self.left = asyncio.Event()
        self.leave_after = leave_after

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.received.append(message.get("body", b""))
        if self.leave_after is not None and len(self.received) > self.leave_after:
            self.left.set()


class Work:
    """A generator that knows whether it was closed, and in the task that ran it."""

    def __init__(self, count: int, *, delay_s: float = 0.0, fail_at: int | None = None) -> None:
        self.count, self.delay_s, self.fail_at = count, delay_s, fail_at
        self.made = 0
        self.closed_in: asyncio.Task[object] | None = None
        self.ran_in: asyncio.Task[object] | None = None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        self.ran_in = asyncio.current_task()
        try:
            async with asyncio.timeout(60):  # which must be entered and left by one task
                for i in range(self.count):
                    await asyncio.sleep(self.delay_s)
                    if i == self.fail_at:
                        raise ValueError("broken")
                    self.made += 1
                    yield event_line(b"%d" % i)
        finally:
            self.closed_in = asyncio.current_task()


async def serve(work: Work, client: Client) -> None:
    feed = await Feed(work.pieces(), client.receive).opened()
    await EventStream(feed, lambda exc: event_line(type(exc).__name__.encode()))({}, client.receive, client.send)


async def test_everything_arrives_in_order() -> None:
    client, work = Client(), Work(100)
    await serve(work, client)
    assert b"".join(client.received) == b"".join(event_line(b"%d" % i) for i in range(100))
    assert work.closed_in is work.ran_in is not None


@pytest.mark.parametrize("leave_after", [1, 3])
async def test_a_client_that_leaves_closes_the_generator(leave_after: int) -> None:
    client, work = Client(leave_after), Work(1000, delay_s=0.001)
    await asyncio.wait_for(serve(work, client), 5)
    assert work.made < 100
    assert work.closed_in is work.ran_in is not None


async def test_a_client_that_leaves_before_the_first_piece_closes_the_generator() -> None:
    client, work = Client(), Work(1, delay_s=60)
    asyncio.get_running_loop().call_later(0.02, client.left.set)
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(serve(work, client), 5)
    assert work.closed_in is work.ran_in is not None


async def test_a_cancelled_reply_closes_the_generator() -> None:
    client, work = Client(), Work(1000, delay_s=0.001)
    reply = asyncio.create_task(serve(work, client))
    await asyncio.sleep(0.03)
    reply.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reply
    assert 0 < work.made < 100
    assert work.closed_in is work.ran_in is not None


async def test_an_error_before_the_first_piece_is_raised() -> None:
    with pytest.raises(ValueError, match="broken"):
        await serve(Work(3, fail_at=0), Client())


async def test_a_later_error_is_told_in_the_stream() -> None:
    client = Client()
    await serve(Work(3, fail_at=2), client)
    assert [line for line in client.received if line] == [b"data: 0\n\n", b"data: 1\n\n", b"data: ValueError\n\n"]


async def test_unless_left_gives_the_result_the_error_or_stops() -> None:
    stopped = asyncio.Event()

    async def work(then: Callable[[], Awaitable[int]]) -> int:
        try:
            return await then()
        finally:
            stopped.set()

    async def result() -> int:
        return 7

    async def error() -> int:
        raise ValueError("broken")

    async def forever() -> int:
        await asyncio.sleep(60)
        return 0

    assert await unless_left(Client().receive, work(result)) == 7
    with pytest.raises(ValueError, match="broken"):
        await unless_left(Client().receive, work(error))
    client = Client()
    asyncio.get_running_loop().call_later(0.02, client.left.set)
    stopped.clear()
    with pytest.raises(ClientDisconnect):
        await unless_left(client.receive, work(forever))
    assert stopped.is_set()
