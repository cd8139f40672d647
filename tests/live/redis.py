"""A real redis-server from Debian's package, with a password, in memory alone."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from tests.live.debian import installed
from tests.live.servers import Server, free_port

PASSWORD = "only for tests"


@dataclass(frozen=True)
class RedisServer:
    """A running server; each test takes a database of its own (0 to 15) or empties it."""

    port: int
    server: Server

    def url(self, port: int | None = None) -> str:
        return f"redis://127.0.0.1:{port or self.port}/0"

    def client(self) -> Redis:
        """To look into it, and to set it, as an operator would."""
        return Redis(port=self.port, password=PASSWORD, socket_timeout=10, decode_responses=True)


def answers(port: int) -> bool:
    """Whether a server is there and has loaded its data."""
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(f'AUTH "{PASSWORD}"\r\nPING\r\nQUIT\r\n'.encode())
        with connection.makefile("rb") as replies:
            return b"+PONG\r\n" in replies.readlines()


@contextmanager
def redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server in a folder, with these options beside those of a test."""
    program = installed("redis-server", "redis-server", "/usr/bin/redis-server")
    port = free_port()
    given = ("--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", "", *options)
    with Server("redis", [program, *given], folder, lambda: answers(port), start_s=30) as server:
        yield RedisServer(port, server)
