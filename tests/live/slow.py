"""A TCP proxy on the loopback interface that delays, stalls or refuses: a server that is there but not well."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio.from_thread


@dataclass
class Proxy:
    """What the proxy does to each piece of data; may be changed while it runs."""

    url: str
    delay_s: float = 0.0
    is_refusing: bool = False
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


@contextmanager
def proxy(target: str, *, delay_s: float = 0.0) -> Iterator[Proxy]:
    """A proxy before the server at the URL `target`."""
    host, port = urlsplit(target).hostname, urlsplit(target).port
    ready, done = threading.Event(), threading.Event()
    made = Proxy("", delay_s)

    async def serve() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if made.is_refusing:
                writer.transport.abort()
                return
            try:
                behind = await asyncio.open_connection(host, port)
            except OSError:
                writer.transport.abort()
                return
            with suppress(asyncio.CancelledError):  # the proxy ends
                await asyncio.gather(_copy(made, reader, behind[1]), _copy(made, behind[0], writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await asyncio.to_thread(done.wait)
        server.close()
        for writer in made.writers:
            writer.transport.abort()

    with anyio.from_thread.start_blocking_portal() as portal:
        serving = portal.start_task_soon(serve)
        ready.wait(10)
        try:
            yield made
        finally:
            done.set()
            serving.result()


async def _copy(made: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    made.writers.add(writer)
    with suppress(OSError):
        while data := await reader.read(65_536):
            await asyncio.sleep(made.delay_s)
            writer.write(data)
            await writer.drain()
    made.writers.discard(writer)
    writer.close()
