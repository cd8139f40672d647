"""Keys (their hashes) and set-aside files in the catalog. Functions of one transaction."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from server import catalog_names
from server.base import ConflictError, NotFoundError, Role
from server.catalog_documents import LOOKUP_BATCH, to_json
from server.tables import failures, keys


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key's claims, as Principal means them; the key itself is nowhere, only its sha256. Times in Unix seconds."""

    id: str
    sha256: str
    name: str
    roles: frozenset[Role]
    namespaces: tuple[str, ...] | None
    groups: frozenset[str] | None
    expires_at: float | None
    created_at: float
    revoked_at: float | None = None
    requests_per_minute: float | None = None  # None: as many as the setting says


@dataclass(frozen=True, slots=True)
class StoredFailure:
    """A source that could not be read, set aside for a retry. `reason` is one of READ_FAILURES."""

    uri: str
    reason: str
    detail: str
    failed_at: float


def _key(row: Row[*tuple[Any, ...]]) -> StoredKey:
    return StoredKey(
        id=row.id,
        sha256=row.sha256,
        name=row.name,
        roles=frozenset(cast(list[Role], orjson.loads(row.roles))),
        namespaces=None if row.namespaces is None else tuple(orjson.loads(row.namespaces)),
        groups=None if row.groups is None else frozenset(orjson.loads(row.groups)),
        expires_at=row.expires_at,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        requests_per_minute=row.requests_per_minute,
    )


def add_key(connection: Connection, key: StoredKey) -> None:
    taken = select(keys.c.id).where((keys.c.id == key.id) | (keys.c.sha256 == key.sha256))
    if connection.execute(taken).first() is not None:
        raise ConflictError(f"key {key.id!r} exists already: make another")
    connection.execute(
        insert(keys).values(
            id=key.id,
            sha256=key.sha256,
            name=key.name,
            roles=to_json(sorted(key.roles)),
            namespaces=None if key.namespaces is None else to_json(key.namespaces),
            groups=None if key.groups is None else to_json(sorted(key.groups)),
            expires_at=key.expires_at,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
            requests_per_minute=key.requests_per_minute,
        )
    )


def find_key(connection: Connection, sha256: str) -> StoredKey | None:
    row = connection.execute(select(keys).where(keys.c.sha256 == sha256)).one_or_none()
    return None if row is None else _key(row)


def all_keys(connection: Connection) -> list[StoredKey]:
    return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id))]


def revoke_key(connection: Connection, id_: str) -> None:
    known = connection.execute(select(keys.c.id).where(keys.c.id == id_)).one_or_none()
    if known is None:
        raise NotFoundError(f"there is no key {id_!r}: list the keys to see their ids")
    alive = (keys.c.id == id_, keys.c.revoked_at.is_(None))
    connection.execute(update(keys).where(*alive).values(revoked_at=time.time()))


# --- sources set aside ---------------------------------------------------------------------------------------------


def record_failure(connection: Connection, namespace_key: int, uri: str, *, reason: str, detail: str) -> None:
    """Raises NotFoundError if the namespace was dropped meanwhile."""
    catalog_names.namespace_by_key(connection, namespace_key)
    clear_failure(connection, namespace_key, uri)
    row = {"namespace_key": namespace_key, "uri": uri, "reason": reason, "detail": detail, "failed_at": time.time()}
    connection.execute(insert(failures).values(row))


def clear_failure(connection: Connection, namespace_key: int, uri: str, *, since: float = 0.0) -> None:
    """Forget what failed of a source, if it failed after `since` (Unix time)."""
    of_source = (failures.c.namespace_key == namespace_key, failures.c.uri == uri)
    connection.execute(delete(failures).where(*of_source, failures.c.failed_at > since))


def failed(connection: Connection, namespace_key: int, uris: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for at in range(0, len(uris), LOOKUP_BATCH):
        named = failures.c.uri.in_(uris[at : at + LOOKUP_BATCH])
        wanted = select(failures.c.uri).where(failures.c.namespace_key == namespace_key, named)
        found.update(connection.execute(wanted).scalars())
    return found


def count_failures(connection: Connection, namespace_key: int) -> int:
    counted = select(func.count()).select_from(failures).where(failures.c.namespace_key == namespace_key)
    return connection.execute(counted).scalar_one()


def page_of_failures(
    connection: Connection, namespace_key: int, after: str | None, limit: int
) -> tuple[list[StoredFailure], str | None]:
    wanted = select(failures).where(failures.c.namespace_key == namespace_key, failures.c.uri > (after or ""))
    rows = connection.execute(wanted.order_by(failures.c.uri).limit(limit + 1)).all()
    found = [StoredFailure(row.uri, row.reason, row.detail, row.failed_at) for row in rows[:limit]]
    return found, found[-1].uri if len(rows) > limit else None
