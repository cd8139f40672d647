"""SQLite as the catalog: a file that one process opens, the owner of the data folder. One connection writes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from server import schema
from server.lease import LocalLeases

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


class Sqlite:
    """A Backend over one file (mode 0600)."""

    writers = 1
    is_shared = False
    read_timeout_s = None
    write_timeout_s = None
    advice = "check the disk's space and the data folder's mode, or restore a backup"

    def __init__(self, path: Path, readers: int = 4) -> None:
        self._path, self.readers = path, readers
        self.leases = LocalLeases()

    def open_engine(self, *, writes: bool) -> Engine:
        return sqlite_engine(self._path, writes=writes)

    def run(self, connect: Callable[[], Connection], work: Callable[[Connection], T], *, writes: bool) -> T:
        connection = connect()
        with connection.begin():
            return work(connection)

    def prepare(self, connect: Callable[[], Connection]) -> None:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = connect()
        with connection.begin():
            schema.prepare(connection)

    def is_away(self, error: DBAPIError) -> bool:
        return False

    async def close(self) -> None:
        pass
