"""Leases that hold among processes: PostgreSQL's session advisory locks, on one connection of their own a process.

A process that dies loses its session and with it every lease; so does one whose connection breaks, which `check` says.
Behind a pooler that gives sessions away (transaction pooling) this does not hold: connect to the server itself.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import psycopg

from server.base import CatalogUnavailableError
from server.lease import Lease
from server.postgres_connection import AsyncConnection, with_options

SPACE = 0x726466  # first half of a lock's key: ours, among others in the same database
SESSION = {  # a session whose host is gone ends after 20 s, and one that is idle does not end
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "20000",
    "idle_session_timeout": "0",
}
POLL_S, POLL_MOST_S = 0.02, 0.5  # between two tries for a lock that another process holds


@dataclass(frozen=True, slots=True)
class PostgresLease:
    """Held as long as the session it was taken in lasts."""

    session: AsyncConnection

    async def check(self) -> None:
        try:
            await self.session.execute("SELECT 1")
        except psycopg.Error as exc:
            raise CatalogUnavailableError(
                f"the lease of the namespace was lost with its connection to PostgreSQL ({exc}): ingest again",
                may_pass=True,
            ) from exc


class PostgresLeases:
    """Leases among the processes that share a database."""

    def __init__(self, parameters: Mapping[str, Any], takeover_s: float) -> None:
        """`takeover_s`: what an index was asked for by a process that then died is done within this time."""
        self.takeover_s = takeover_s
        self._parameters = with_options(parameters, **SESSION)
        self._session: AsyncConnection | None = None
        self._connecting = asyncio.Lock()
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._left_over: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(self, namespace_id: int) -> AsyncGenerator[Lease, None]:
        pause_s = POLL_S
        while True:
            async with self.hold_if_free(namespace_id) as lease:
                if lease is not None:
                    yield lease
                    return
            await asyncio.sleep(random.uniform(0.5, 1) * pause_s)
            pause_s = min(POLL_MOST_S, 2 * pause_s)

    @asynccontextmanager
    async def hold_if_free(self, namespace_id: int) -> AsyncGenerator[Lease | None, None]:
        async with self._locks.setdefault(namespace_id, asyncio.Lock()):
            lease = await self._taken(namespace_id)
            try:
                yield lease
            finally:
                if lease is not None:
                    await asyncio.shield(self._release(namespace_id, lease))

    async def close(self) -> None:
        await asyncio.gather(*self._left_over, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _taken(self, namespace_id: int) -> PostgresLease | None:
        """The lease if nobody else has it. One that comes after its caller was cancelled is given back."""

        async def give_back() -> None:
            if (lease := await taking) is not None:
                await self._release(namespace_id, lease)

        taking = asyncio.ensure_future(self._take(namespace_id))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            giving = asyncio.ensure_future(give_back())
            self._left_over.add(giving)
            giving.add_done_callback(self._left_over.discard)
            raise

    async def _take(self, namespace_id: int) -> PostgresLease | None:
        try:
            session = await self._open()
            cursor = await session.execute("SELECT pg_try_advisory_lock(%s, %s)", _key(namespace_id))
            row = await cursor.fetchone()
        except psycopg.Error as exc:
            said = str(exc).partition("\n")[0]
            raise CatalogUnavailableError(
                f"no lease of the namespace ({said}): check that PostgreSQL runs and can be reached", may_pass=True
            ) from exc
        return PostgresLease(session) if row is not None and row[0] else None

    async def _release(self, namespace_id: int, lease: PostgresLease) -> None:
        with suppress(psycopg.Error):  # a lost session has no locks left
            await lease.session.execute("SELECT pg_advisory_unlock(%s, %s)", _key(namespace_id))

    async def _open(self) -> AsyncConnection:
        async with self._connecting:
            if self._session is None or self._session.closed:
                self._session = await AsyncConnection.connect(**self._parameters, autocommit=True)
            return self._session


def _key(namespace_id: int) -> tuple[int, int]:
    """Two 32-bit halves; namespaces that share one, 2³¹ apart, would only wait for each other."""
    return SPACE, namespace_id & 0x7FFF_FFFF
