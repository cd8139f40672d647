"""A TCP proxy that stands between a client and its server, and is slow, hangs, refuses or cuts when it is told to. Of
HTTP it knows as much as it takes to answer in the server's place, or to ask for a password."""

import asyncio
import ssl
import threading
from base64 import b64encode
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_EMPTY_ANSWER = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Listens on a free port of the loopback interface, in a thread with a loop of its own."""

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None, credentials: str | None = None) -> None:
        """`credentials`: the "user:password" of HTTP's basic authentication; anyone else gets 401."""
        self.target_port = target_port
        self.port = 0
        self.refuses = False
        self.delay_s = 0.0  # before each piece of an answer
        self.status: bytes | None = None  # answers every HTTP request itself: b"503 Service Unavailable"
        self.headers = b""  # of that answer, each with its line's end
        self.requests = 0  # pieces that clients have sent
        self._tls = tls
        self._expected = b"Basic " + b64encode(credentials.encode()) if credentials else b""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._is_passing = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    def before(cls, url: str, *, tls: ssl.SSLContext | None = None, credentials: str | None = None) -> Self:
        """The proxy of a server on this machine."""
        port = urlsplit(url).port
        assert port is not None, url
        return cls(port, tls=tls, credentials=credentials)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def hang(self) -> None:
        """Keep what comes from either side."""
        self._loop.call_soon_threadsafe(self._is_passing.clear)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._is_passing.set)

    def cut(self) -> None:
        """Reset every connection there is."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    async def _listen(self) -> None:
        self._is_passing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            answers, asks = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, asks}
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pass_requests(reader, asks, writer), self._pass_answers(answers, writer))
        self._open -= {writer, asks}

    async def _pass_requests(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(65_536):
                self.requests += 1
                if status := self._refusal(data):
                    client.write(_EMPTY_ANSWER % (status, self.headers))
                    await client.drain()
                    return
                await self._is_passing.wait()
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    def _refusal(self, data: bytes) -> bytes | None:
        if self._expected and b" HTTP/1.1\r\n" in data and self._expected not in data:
            return b"401 Unauthorized"
        return self.status

    async def _pass_answers(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self._is_passing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()
