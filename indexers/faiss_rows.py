"""The durable half of a namespace in the faiss index: its points in one SQLite file, a row a version.

A write is a transaction, so a crash leaves it done or undone; `flush` is what makes it outlive a power cut.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from indexers.base import (
    CollectionSpec,
    Float32,
    IndexerError,
    IndexUnavailableError,
    Namespace,
    Point,
    StoredPoint,
)
from indexers.payload import pack, unpack

_SCHEMA = """
CREATE TABLE namespace (described TEXT NOT NULL);
CREATE TABLE points (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    born INTEGER NOT NULL,
    died INTEGER,
    vector BLOB NOT NULL,
    packed TEXT NOT NULL,
    UNIQUE (id, born)
);
"""
_FILE = "points.sqlite"
_BATCH = 4096  # rows read at once when a namespace is opened
_MOST_PARAMETERS = 500  # of one statement


@dataclass(frozen=True, slots=True)
class Row:
    """A stored version of a point and its place in the file; rows are numbered upwards and never used again."""

    number: int
    stored: StoredPoint


@contextmanager
def map_errors(what: object) -> Iterator[None]:
    """Translate whatever SQLite, its files and faiss raise."""
    try:
        yield
    except IndexerError:
        raise
    except Exception as exc:
        raise IndexUnavailableError(f"{what}: the faiss index failed: {exc}; retry, or run `refdesk repair`") from exc


class Rows:
    """An open file. Not for two threads at once."""

    def __init__(self, folder: Path) -> None:
        path = folder / _FILE
        if not path.exists():
            raise FileNotFoundError(path)
        self._connection = _connect(path)
        try:
            self.namespace = _described(self._connection)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def make(cls, folder: Path, namespace: Namespace) -> None:
        """Make the file of an empty namespace in a folder."""
        described = json.dumps({"collection": asdict(namespace.collection), "name": namespace.name})
        with closing(_connect(folder / _FILE)) as connection:
            connection.executescript(_SCHEMA)
            with connection:
                connection.execute("INSERT INTO namespace VALUES (?)", (described,))

    @classmethod
    def name_in(cls, folder: Path) -> str:
        """The name of the namespace whose folder this is."""
        with closing(_connect(folder / _FILE)) as connection:
            return _described(connection).name

    def close(self) -> None:
        self._connection.close()

    def flush(self) -> None:
        """Make every write so far durable: move it from the log to the file, both synced."""
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise IndexUnavailableError("another process has the faiss index open; stop it")

    def batches(self) -> Iterator[list[Row]]:
        """All rows in their order."""
        found = self._connection.execute(f"{_SELECT} ORDER BY row")
        while batch := found.fetchmany(_BATCH):
            yield [_row(columns) for columns in batch]

    def read(self, numbers: Sequence[int]) -> list[Row]:
        """The rows of these numbers, in the order of the numbers."""
        found: dict[int, Row] = {}
        for start in range(0, len(numbers), _MOST_PARAMETERS):
            some = numbers[start : start + _MOST_PARAMETERS]
            marks = ",".join("?" * len(some))
            rows = map(_row, self._connection.execute(f"{_SELECT} WHERE row IN ({marks})", some))
            found |= {row.number: row for row in rows}
        return [found[number] for number in numbers]

    def replace(self, points: Sequence[Point], born: int, ended: Sequence[int]) -> list[int]:
        """Store new versions, each in the place of one of the same id and commit if there is one, and give the rows
        `ended` died = born; returns the numbers of the new rows."""
        values = ((p.id, born, p.vector.astype("<f4").tobytes(), pack(p)) for p in points)
        statement = "INSERT OR REPLACE INTO points (id, born, vector, packed) VALUES (?, ?, ?, ?)"
        with self._connection as transaction:
            numbers = [transaction.execute(statement, value).lastrowid or 0 for value in values]
            self._set_died(ended, born)
        return numbers

    def end(self, numbers: Sequence[int], died: int | None) -> None:
        """Give rows a commit at which they died, or None to let them live again."""
        with self._connection:
            self._set_died(numbers, died)

    def remove(self, numbers: Sequence[int]) -> None:
        with self._connection as transaction:
            transaction.executemany("DELETE FROM points WHERE row = ?", ((number,) for number in numbers))

    def _set_died(self, numbers: Sequence[int], died: int | None) -> None:
        changes = ((died, number) for number in numbers)
        self._connection.executemany("UPDATE points SET died = ? WHERE row = ?", changes)


_SELECT = "SELECT row, id, born, died, vector, packed FROM points"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # the log is synced by `flush`, not by each transaction
    except BaseException:
        connection.close()
        raise
    return connection


def _described(connection: sqlite3.Connection) -> Namespace:
    described = json.loads(connection.execute("SELECT described FROM namespace").fetchone()[0])
    return Namespace(CollectionSpec(**described["collection"]), described["name"])


def _row(columns: tuple[int, str, int, int | None, bytes, str]) -> Row:
    number, point_id, born, died, vector, packed = columns
    array: Float32 = np.frombuffer(vector, "<f4").astype(np.float32)
    return Row(number, StoredPoint(unpack(point_id, packed, array), born, died))
