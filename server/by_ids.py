"""Reads by ids that every search waits for, handed to SQLite's driver itself.

Through the toolkit, one takes nearly twice as long as SQLite needs to answer it (docs/decisions.md).
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import ExpandedState


class ByIds:
    """A SELECT of texts, numbers and bytes with the expanding parameter `ids`."""

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        self.statement = statement
        self._expanded: dict[int, ExpandedState] = {}  # for so many ids

    def rows(self, connection: Connection, ids: Sequence[str], **parameters: object) -> Sequence[Sequence[Any]]:
        """All rows, each in the order of its columns. Raises DBAPIError."""
        if connection.dialect.name != "sqlite":  # whose answer crosses a network: nothing to gain
            return connection.execute(self.statement, {"ids": ids, **parameters}).all()
        expanded = self._expanded.get(len(ids))
        if expanded is None:
            expanded = self._expanded[len(ids)] = self._expand(connection, ids, parameters)
        named = dict(zip(expanded.parameter_expansion["ids"], ids, strict=True))
        values = {**expanded.parameters, **parameters, **named}
        cursor = connection.connection.cursor()
        try:
            cursor.execute(expanded.statement, [values[name] for name in expanded.positiontup or ()])
            return cursor.fetchall()
        except sqlite3.Error as exc:
            raise DBAPIError(None, None, exc) from exc

    def _expand(self, connection: Connection, ids: Sequence[str], parameters: dict[str, object]) -> ExpandedState:
        compiled = self.statement.compile(dialect=connection.dialect)
        return compiled.construct_expanded_state({"ids": ids, **parameters})
