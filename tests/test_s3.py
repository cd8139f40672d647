"""What the client of S3 sends, seen by a server that only listens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.base import StoreUnavailableError
from server.s3 import S3, Access, Encryption, Keys, Place

OBJECT = Place("bucket", "key")


@asynccontextmanager
async def listening(answer: bytes, heard: list[bytes]) -> AsyncIterator[S3]:
    """A client of a server that notes each request, answers it so and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        heard[-1] += await reader.readexactly(5)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        s3 = await S3.connect(Access(f"http://127.0.0.1:{port}", keys=Keys("id", "secret"), timeout_s=5))
        yield s3
        await s3.close()


async def test_an_object_is_sent_without_asking_whether_it_may_be() -> None:
    heard: list[bytes] = []
    async with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", heard) as s3:
        await s3.put(OBJECT, b"bytes", Encryption())
    (request,) = heard
    assert request.startswith(b"PUT /bucket/key HTTP/1.1")
    assert request.endswith(b"\r\n\r\nbytes")
    assert b"expect:" not in request.lower()


async def test_a_server_that_hangs_up_is_named_after_three_attempts() -> None:
    heard: list[bytes] = []
    async with listening(b"", heard) as s3:
        with pytest.raises(StoreUnavailableError, match="s3_endpoint"):
            await s3.put(OBJECT, b"bytes", Encryption())
    assert all(any(f"attempt={attempt}".encode() in request for request in heard) for attempt in (1, 2, 3))
