"""A real PostgreSQL cluster from Debian's packages, in a folder of its own, with a database for each test."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg

from tests.live.debian import installed
from tests.live.servers import Server, free_port, need

PLACES = "/usr/lib/postgresql/*/bin/"
PASSWORD = "only for tests"
_numbers = count(1)


class Cluster(Server):
    """Its processes are each in a group of their own, so a signal goes to every one."""

    def stop(self) -> None:
        self._end(signal.SIGINT)  # SIGTERM would wait for every client to leave

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        super().kill()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            main = self._process.pid
            children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
            for pid in [*map(int, children), main]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)


@dataclass(frozen=True)
class PostgresServer:
    """A running cluster; `url` is that of its superuser, without the password."""

    port: int
    server: Server

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://refdesk@127.0.0.1:{port or self.port}/{database}"

    def new_database(self) -> str:
        """The name of an empty one, whose order of letters is not that of code points unless it is asked for."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        url = self.url(database)
        with psycopg.connect(url, password=PASSWORD, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres(**settings: str) -> Iterator[PostgresServer]:
    """A cluster with these settings of postgresql.conf beside those of a test."""
    program, initdb = (installed(name, "postgresql", PLACES + name) for name in ("postgres", "initdb"))
    ready = installed("pg_isready", "postgresql-client", PLACES + "pg_isready")
    folder = Path(tempfile.mkdtemp(prefix="refdesk-postgres-"))  # not below pytest's, which another user cannot enter
    user = _hand_over(folder)
    port = free_port()
    try:
        _make_cluster([*user, initdb], folder)
        given = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "", **settings}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        ask = [ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
        command = [*user, program, "-D", str(folder / "data"), *options]
        with Cluster("postgres", command, folder, lambda: subprocess.run(ask, check=False).returncode == 0) as server:
            yield PostgresServer(port, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hand_over(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: give the folder to another user; returns what runs a command as that user."""
    if os.geteuid() != 0:
        return []
    setpriv = need("setpriv")
    shutil.chown(folder, "nobody")
    return [setpriv, "--reuid=nobody", "--clear-groups"]


def _make_cluster(initdb: list[str], folder: Path) -> None:
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    locale = ["--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"]
    access = ["--username=refdesk", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync"]
    made = [*initdb, "-D", str(folder / "data"), *locale, *access]
    subprocess.run(made, check=True, cwd=folder, stdout=subprocess.DEVNULL)
