"""Connections to PostgreSQL: what a URL asks for, and waits that end, since TCP says nothing of a server that hangs."""

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import QueryCanceled
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from server.base import InvalidRequestError

T = TypeVar("T")

POLL_S = 0.1  # between two looks at the clock while waiting
DEFAULTS = {
    "application_name": "refdesk",
    "connect_timeout": "5",
    "keepalives_idle": "10",  # with the next three: a host that is gone is noticed in 20 s
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}


def connection_parameters(url: str, password: str | None) -> dict[str, Any]:
    """libpq's parameters of a URL. Raises InvalidRequestError, never showing the URL: it may hold a password."""
    try:
        parsed = make_url(url)
        given = {**parsed.translate_connect_args(username="user", database="dbname"), **parsed.query}
    except (ArgumentError, ValueError) as exc:
        raise InvalidRequestError(
            "catalog_url is no URL: write postgresql://user@host:5432/database", "catalog_url"
        ) from exc
    if parsed.get_backend_name() != "postgresql" or "dbname" not in given:
        raise InvalidRequestError(
            f"catalog_url is one of {parsed.drivername!r}, and its database {parsed.database!r}: write "
            "postgresql://user@host:5432/database",
            "catalog_url",
        )
    return {**DEFAULTS, **given, **({"password": password} if password is not None else {})}


def with_options(parameters: Mapping[str, Any], **options: str) -> dict[str, Any]:
    """The parameters with settings of the server for the session, after those that the URL may have given."""
    given = [parameters["options"]] if "options" in parameters else []
    return {**parameters, "options": " ".join([*given, *(f"-c {name}={value}" for name, value in options.items())])}


class Connection(psycopg.Connection[Any]):
    """A connection for one thread; an answer that takes longer than `wait_s` raises QueryCanceled and closes it."""

    wait_s = 5.0

    def wait(self, gen: PQGen[T], interval: float = POLL_S, timeout: float | None = None) -> T:
        until = time.monotonic() + (timeout or self.wait_s)
        try:
            return super().wait(gen, interval, timeout or self.wait_s)
        except psycopg.OperationalError as exc:
            _close_if_late(self.pgconn, exc, until)
            raise


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """The same for the event loop."""

    wait_s = 5.0

    async def wait(self, gen: PQGen[T], interval: float = POLL_S, timeout: float | None = None) -> T:
        until = time.monotonic() + (timeout or self.wait_s)
        try:
            return await super().wait(gen, interval, timeout or self.wait_s)
        except psycopg.OperationalError as exc:
            _close_if_late(self.pgconn, exc, until)
            raise


def _close_if_late(connection: PGconn, error: psycopg.OperationalError, until: float) -> None:
    """Close a connection that still owes an answer, which would be taken for that of the next question."""
    if time.monotonic() >= until and connection.transaction_status == TransactionStatus.ACTIVE:
        connection.finish()
        raise QueryCanceled("the server gave no answer in time") from error
