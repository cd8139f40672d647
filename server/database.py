"""One writer connection in a thread of its own and a few readers in theirs, behind `await`.

All that is SQLite's alone is in this file: pragmas, BEGIN, the file's mode. Only the process that holds the data
folder's lock opens it. Errors of the driver leave as CatalogUnavailableError.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from server import tables
from server.base import CatalogUnavailableError, ConflictError

P = ParamSpec("P")
T = TypeVar("T")

PRAGMAS = (
    "PRAGMA page_size = 8192",  # before WAL, and only while the file is empty
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 10000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16384",  # KiB a connection
    "PRAGMA journal_size_limit = 67108864",  # the log's file shrinks again after a large commit
    "PRAGMA temp_store = MEMORY",
)


@contextmanager
def map_errors() -> Iterator[None]:
    """Let a failure of the database leave as one of ours."""
    try:
        yield
    except DBAPIError as exc:  # its own words only: SQLAlchemy's would show parameters, so document text
        raise CatalogUnavailableError(
            f"the catalog failed ({exc.orig}): check the disk's space and the data folder's mode, or restore a backup"
        ) from exc


def sqlite_engine(path: Path, *, writes: bool) -> Engine:
    """An engine over one file. Transactions are begun by us (BEGIN IMMEDIATE to write): the driver begins none."""
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)), poolclass=NullPool, hide_parameters=True)
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def prepare_schema(connection: Connection) -> None:
    """Create the tables of a fresh catalog. Raises ConflictError for a catalog of another schema version."""
    if not inspect(connection).has_table("schema_info"):
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.schema_info).values(version=tables.SCHEMA_VERSION))
        return
    found = connection.execute(select(tables.schema_info.c.version)).scalar_one()
    if found != tables.SCHEMA_VERSION:
        raise ConflictError(
            f"the catalog has schema version {found!r}, and this refdesk reads {tables.SCHEMA_VERSION}: use the "
            "release that wrote it, or ingest into a new data folder"
        )


class Database:
    """Runs functions of a Connection, each in one transaction, off the event loop."""

    def __init__(self, path: Path, readers: int = 4) -> None:
        self._path = path
        self._write_engine = sqlite_engine(path, writes=True)
        self._read_engine = sqlite_engine(path, writes=False)
        self._writer = ThreadPoolExecutor(1, "catalog-writer")
        self._readers = ThreadPoolExecutor(readers, "catalog-reader")
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._is_closed = False

    async def open(self) -> None:
        """Create the file (mode 0600) if it is not there, and check or make its schema."""
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        await self.write(prepare_schema)

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query in one read transaction on a reader's thread."""
        return await self._submit(self._readers, self._read_engine, lambda c: query(c, *args, **kwargs))

    async def write(self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a change in one transaction on the writer's thread; it is durable when this returns."""
        return await self._submit(self._writer, self._write_engine, lambda c: change(c, *args, **kwargs))

    async def _submit(self, pool: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], T]) -> T:
        if self._is_closed:
            raise CatalogUnavailableError("the catalog is closed: the server is stopping")
        return await asyncio.get_running_loop().run_in_executor(pool, self._run, engine, work)

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        with map_errors():
            connection: Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = engine.connect()
                self._connections.append(connection)
            with connection.begin():
                return work(connection)

    async def close(self) -> None:
        """Wait for what is running, then close every connection."""
        self._is_closed = True
        for pool in (self._readers, self._writer):
            await asyncio.to_thread(pool.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._write_engine.dispose()
        self._read_engine.dispose()
