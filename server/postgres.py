"""PostgreSQL as the catalog: a database that several processes share.

Reads see one snapshot (REPEATABLE READ). Writes do too, and what a neighbour's commit makes impossible is tried again
from the start, so that a change never acts on what is no longer so. A server that restarts is reconnected to.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from server import schema
from server.base import CatalogUnavailableError
from server.postgres_connection import Connection as DriverConnection
from server.postgres_connection import connection_parameters, with_options
from server.postgres_lease import PostgresLeases

T = TypeVar("T")

ATTEMPTS = 5
PAUSE_S = 0.1  # before the second attempt at most, doubled each time: 1.5 s in all, a restart of the server
SCHEMA_LOCK = 0x72656664_65736B00  # "refdesk", so that processes which start together make the schema one by one
# serialization_failure, deadlock_detected; and where two make the same thing at once, its unique index or its owner
# tells the second one before the isolation level does
OVERTAKEN = frozenset({"40001", "40P01", "23505", "23503"})
UNREACHABLE = frozenset({None, "57P03", "53300"})  # no connection at all; starting; too many connections
TIMED_OUT = "57014"


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections of this process, one for leases not counted, and seconds that a transaction may take, the wait for a
    connection included. `takeover_s`: see server/lease.py."""

    readers: int = 8
    writers: int = 4
    read_s: float = 5.0
    write_s: float = 60.0
    takeover_s: float = 10.0


class Postgres:
    """A Backend over a server's database, which is there and in UTF-8; `password` comes on top of the url's."""

    is_shared = True
    advice = "check that PostgreSQL runs and can be reached, its disk's space and its max_connections"

    def __init__(self, url: str, password: str | None = None, limits: Limits | None = None) -> None:
        """`url`: postgresql://user@host:port/database, with libpq's parameters. Raises InvalidRequestError."""
        limits = limits or Limits()
        self.readers, self.writers = limits.readers, limits.writers
        self.read_timeout_s, self.write_timeout_s = limits.read_s, limits.write_s
        self._parameters = connection_parameters(url, password)
        self.leases = PostgresLeases(self._parameters, limits.takeover_s)

    def open_engine(self, *, writes: bool) -> Engine:
        timeout_s = self.write_timeout_s if writes else self.read_timeout_s
        parameters = with_options(self._parameters, statement_timeout=f"{timeout_s * 1000:.0f}", timezone="UTC")

        def connect() -> DriverConnection:
            connection = DriverConnection.connect(**parameters)
            connection.wait_s = timeout_s + 1  # a server that lives says so itself, and knows why
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = not writes
            return connection

        return create_engine(
            "postgresql+psycopg://", creator=connect, poolclass=NullPool, hide_parameters=True, use_native_hstore=False
        )

    def run(self, connect: Callable[[], Connection], work: Callable[[Connection], T], *, writes: bool) -> T:
        attempts = ATTEMPTS if writes else 2
        for attempt in range(attempts):
            is_done = False
            try:
                connection = connect()
                with connection.begin():
                    result = work(connection)
                    is_done = True
                return result
            except DBAPIError as exc:
                was_overtaken = getattr(exc.orig, "sqlstate", None) in OVERTAKEN
                was_lost = self.is_away(exc) and not (writes and is_done)  # what said COMMIT may be done
                if attempt == attempts - 1 or not (was_overtaken or was_lost):
                    raise
            if writes:
                time.sleep(random.uniform(0.5, 1) * PAUSE_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def prepare(self, connect: Callable[[], Connection]) -> None:
        """Under a lock, and reading what is committed: of processes that start together one makes the schema."""
        committed = connect().engine.execution_options(isolation_level="READ COMMITTED")
        with committed.connect() as connection, connection.begin():
            encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
            if encoding != "UTF8":
                raise CatalogUnavailableError(
                    f"the catalog's database is encoded in {encoding}: make one with ENCODING 'UTF8'"
                )
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SCHEMA_LOCK})
            schema.prepare(connection)

    def is_away(self, error: DBAPIError) -> bool:
        state = getattr(error.orig, "sqlstate", None)
        if state == TIMED_OUT:
            return False
        unreachable = isinstance(error.orig, psycopg.OperationalError) and state in UNREACHABLE
        return unreachable or error.connection_invalidated

    async def close(self) -> None:
        await self.leases.close()
