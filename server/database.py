"""A catalog's connections, each in a thread of its own, behind `await`: a few readers, and the writers.

What is one database's alone (how it is opened, how a transaction begins, what is tried again) is in its own file:
sqlite.py, postgres.py. Errors of a driver leave as CatalogUnavailableError.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError

from server.base import CatalogUnavailableError, InvalidRequestError
from server.lease import Leases

P = ParamSpec("P")
T = TypeVar("T")


class Backend(Protocol):
    """What one kind of database does its own way."""

    @property
    def readers(self) -> int:
        """Connections that read."""
        ...

    @property
    def writers(self) -> int:
        """Connections that write; a database that has one writer at a time gets one."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to it."""
        ...

    @property
    def read_timeout_s(self) -> float | None:
        """What a reader waits at most, the wait for a connection included; None: no limit."""
        ...

    @property
    def write_timeout_s(self) -> float | None: ...

    @property
    def advice(self) -> str:
        """The way out, for the message of an error."""
        ...

    @property
    def leases(self) -> Leases: ...

    def open_engine(self, *, writes: bool) -> Engine:
        """An engine whose pool keeps no connection: each thread keeps its own."""
        ...

    def run(self, connect: Callable[[], Connection], work: Callable[[Connection], T], *, writes: bool) -> T:
        """Run the work in one transaction of this thread's connection, again where the database asks for it."""
        ...

    def prepare(self, connect: Callable[[], Connection]) -> None:
        """See to it that the database is there and has the schema; `connect` gives a writer's connection."""
        ...

    def is_away(self, error: DBAPIError) -> bool:
        """Whether the database cannot be reached, and may be in a moment."""
        ...

    async def close(self) -> None: ...


@contextmanager
def map_errors(backend: Backend) -> Iterator[None]:
    """Let a failure of the database leave as one of ours."""
    try:
        yield
    except DBAPIError as exc:  # its own words only: SQLAlchemy's would show parameters, so document text
        said = str(exc.orig).partition("\n")[0]  # the lines that follow may name values
        if isinstance(exc, DataError) and "NUL" in said:  # PostgreSQL's alone
            raise InvalidRequestError("a name, an id or a cursor holds a NUL character, so nothing has it") from exc
        message = f"the catalog failed ({said}): {backend.advice}"
        raise CatalogUnavailableError(message, may_pass=backend.is_away(exc)) from exc


class Database:
    """Runs functions of a Connection, each in one transaction, off the event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._write_engine = backend.open_engine(writes=True)
        self._read_engine = backend.open_engine(writes=False)
        self._writers = ThreadPoolExecutor(backend.writers, "catalog-writer")
        self._readers = ThreadPoolExecutor(backend.readers, "catalog-reader")
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._is_closed = False
        self.writes = 0  # transactions that this process has ended

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to it: what was read may then change without a write of this process."""
        return self._backend.is_shared

    @property
    def leases(self) -> Leases:
        return self._backend.leases

    async def open(self) -> None:
        """Make the database or the schema if it is not there. Raises ConflictError for a newer schema."""

        def prepare() -> None:
            with map_errors(self._backend):
                self._backend.prepare(lambda: self._connection(writes=True))

        await asyncio.get_running_loop().run_in_executor(self._writers, prepare)

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in one read transaction on a reader's thread."""
        return await self._submit(lambda c: query(c, *args, **kwargs), writes=False)

    async def write(self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a change in one transaction on a writer's thread; it is durable when this returns."""
        return await self._submit(lambda c: change(c, *args, **kwargs), writes=True)

    async def _submit(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        if self._is_closed:
            raise CatalogUnavailableError("the catalog is closed: the server is stopping")
        pool = self._writers if writes else self._readers
        running = asyncio.get_running_loop().run_in_executor(pool, self._run, work, writes)
        timeout_s = self._backend.write_timeout_s if writes else self._backend.read_timeout_s
        if timeout_s is None:
            return await running
        try:
            async with asyncio.timeout(timeout_s):
                return await running
        except TimeoutError:
            raise CatalogUnavailableError(
                f"the catalog gave no answer within {timeout_s:g} s: {self._backend.advice}", may_pass=True
            ) from None

    def _run(self, work: Callable[[Connection], T], writes: bool) -> T:
        try:
            with map_errors(self._backend):
                return self._backend.run(lambda: self._connection(writes), work, writes=writes)
        finally:
            self.writes += writes

    def _connection(self, writes: bool) -> Connection:
        """This thread's connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            engine = self._write_engine if writes else self._read_engine
            connection = self._local.connection = engine.connect()
            self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Wait for what is running, then close every connection."""
        self._is_closed = True
        for pool in (self._readers, self._writers):
            await asyncio.to_thread(pool.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._write_engine.dispose()
        self._read_engine.dispose()
        await self._backend.close()
