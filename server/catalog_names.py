"""Collections and namespaces in the catalog, and the commits of a namespace. Functions of one transaction."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from indexers.base import CollectionSpec, Metric, Namespace
from server.base import Collection, ConflictError, InvalidRequestError, NamespaceState, NotFoundError
from server.tables import collections, commits, documents, lives, namespaces, purges, versions

MAX_NAME_CHARS = 256
KEY_BITS = 47  # of a namespace's random key: few enough for SQLite to keep it in six bytes

_ANY = select(
    namespaces.c.key,
    namespaces.c.name.label("namespace"),
    namespaces.c.commit_number,
    namespaces.c.committed_at,
    collections.c.name,
    collections.c.dimension,
    collections.c.metric,
    collections.c.language,
    collections.c.embedder_fingerprint,
    namespaces.c.pending,
    namespaces.c.pending_by,
    namespaces.c.sweeping,
    namespaces.c.dropping,
    select(purges.c.document_id).where(purges.c.namespace_key == namespaces.c.key).exists().label("purging"),
).join_from(namespaces, collections)
_NAMESPACE = _ANY.where(~namespaces.c.dropping)
_ONE = _NAMESPACE.where(collections.c.name == bindparam("collection"), namespaces.c.name == bindparam("namespace"))
_SOME = _NAMESPACE.where(
    collections.c.name == bindparam("collection"), namespaces.c.name.in_(bindparam("names", expanding=True))
)
_EVEN_DROPPING = _ANY.where(collections.c.name == bindparam("collection"), namespaces.c.name == bindparam("namespace"))
_ALL = _NAMESPACE.where(collections.c.name == bindparam("collection")).order_by(namespaces.c.name)
_BY_KEY = _NAMESPACE.where(namespaces.c.key == bindparam("key"))


def _state(row: Row[*tuple[Any, ...]]) -> NamespaceState:
    spec = CollectionSpec(row.name, row.dimension, cast(Metric, row.metric), row.language)
    space = Namespace(spec, row.namespace)
    return NamespaceState(row.key, space, row.commit_number, row.committed_at, row.embedder_fingerprint)


def _collection(row: Row[*tuple[Any, ...]]) -> Collection:
    spec = CollectionSpec(row.name, row.dimension, cast(Metric, row.metric), row.language)
    return Collection(spec, row.embedder, row.embedder_fingerprint, row.chunking)


def _check_name(kind: str, name: str) -> None:
    """Raises InvalidRequestError for a name that no model id (`collection:namespace`) or key's claim could carry."""
    if (
        not 1 <= len(name) <= MAX_NAME_CHARS
        or not name.isprintable()
        or name != name.strip()
        or name == "*"
        or (kind == "collection" and ":" in name)
    ):
        raise InvalidRequestError(
            f"{name!r:.60} is no name for a {kind}: give 1 to {MAX_NAME_CHARS} printable characters without a blank at "
            "either end; not '*', and no ':' in a collection's",
            kind,
        )


# --- collections ---------------------------------------------------------------------------------------------------


def create_collection(connection: Connection, collection: Collection) -> None:
    _check_name("collection", collection.spec.name)
    row = connection.execute(select(collections).where(collections.c.name == collection.spec.name)).one_or_none()
    if row is not None:
        if _collection(row) != collection:
            raise ConflictError(
                f"collection {collection.spec.name!r} exists as {_collection(row)!r}, not as {collection!r}: "
                "choose another name, or drop it and ingest anew"
            )
        return
    connection.execute(
        insert(collections).values(
            name=collection.spec.name,
            dimension=collection.spec.dimension,
            metric=collection.spec.metric,
            language=collection.spec.language,
            embedder=collection.embedder,
            embedder_fingerprint=collection.embedder_fingerprint,
            chunking=collection.chunking,
            created_at=time.time(),
        )
    )


def collection(connection: Connection, name: str) -> Collection:
    row = connection.execute(select(collections).where(collections.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no collection {name!r}: ingest into it, or create it")
    return _collection(row)


def all_collections(connection: Connection) -> list[Collection]:
    return [_collection(row) for row in connection.execute(select(collections).order_by(collections.c.name))]


def rechunk_collection(connection: Connection, name: str, chunking: str) -> None:
    """Note that the collection is cut otherwise from now on; its documents say each how they were cut."""
    connection.execute(update(collections).where(collections.c.name == name).values(chunking=chunking))


def drop_collection(connection: Connection, name: str) -> None:
    row = connection.execute(select(collections.c.key).where(collections.c.name == name)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no collection {name!r}")
    left = connection.execute(select(func.count()).where(namespaces.c.collection_key == row.key)).scalar_one()
    if left:
        raise ConflictError(f"collection {name!r} still has {left} namespaces: drop them first")
    connection.execute(delete(collections).where(collections.c.key == row.key))


# --- namespaces ----------------------------------------------------------------------------------------------------


def namespace(connection: Connection, collection: str, name: str) -> NamespaceState:
    row = connection.execute(_ONE, {"collection": collection, "namespace": name}).one_or_none()
    if row is None:
        raise _no_namespace(connection, collection, name)
    return _state(row)


def droppable(connection: Connection, collection: str, name: str) -> NamespaceState:
    """A namespace, also one whose drop was begun and not finished."""
    row = connection.execute(_EVEN_DROPPING, {"collection": collection, "namespace": name}).one_or_none()
    if row is None:
        raise _no_namespace(connection, collection, name)
    return _state(row)


def _no_namespace(connection: Connection, of: str, name: str) -> NotFoundError:
    collection(connection, of)  # which says so if it is the collection that is missing
    return NotFoundError(f"collection {of!r} has no namespace {name!r}: ingest into it first")


def namespace_by_key(connection: Connection, key: int) -> NamespaceState:
    row = connection.execute(_BY_KEY, {"key": key}).one_or_none()
    if row is None:
        raise NotFoundError("the namespace was dropped meanwhile")
    return _state(row)


def create_namespace(connection: Connection, collection: str, name: str) -> NamespaceState:
    """The namespace, made at commit 0 if it is not there. Raises ConflictError while an older one is being dropped."""
    _check_name("namespace", name)
    key = connection.execute(select(collections.c.key).where(collections.c.name == collection)).scalar_one_or_none()
    if key is None:
        raise NotFoundError(f"there is no collection {collection!r}: create it first")
    where = (namespaces.c.collection_key == key, namespaces.c.name == name)
    row = connection.execute(select(namespaces.c.dropping).where(*where)).one_or_none()
    if row is not None and row.dropping:
        raise ConflictError(f"namespace {name!r} is being dropped: run `refdesk repair`, or try again in a moment")
    if row is None:
        now = time.time()
        begun = {"commit_number": 0, "committed_at": now, "swept": 0, "sweeping": False, "dropping": False}
        # SQLite numbers a row as one that is gone: what was begun in a dropped namespace must not end in another one
        new = {"key": secrets.randbits(KEY_BITS), "collection_key": key, "name": name, "created_at": now}
        connection.execute(insert(namespaces).values(**new, **begun))
    return namespace(connection, collection, name)


def all_namespaces(connection: Connection, collection: str) -> list[NamespaceState]:
    return [_state(row) for row in connection.execute(_ALL, {"collection": collection})]


def snapshot(connection: Connection, collection: str, names: Sequence[str]) -> dict[str, NamespaceState]:
    rows = connection.execute(_SOME, {"collection": collection, "names": list(names)})
    states = {row.namespace: _state(row) for row in rows}
    for name in names:
        if name not in states:
            raise _no_namespace(connection, collection, name)
    return states


def statistics(connection: Connection, namespace_key: int) -> tuple[int, int]:
    """(documents, chunks) of the namespace's present commit."""
    present = documents.c.namespace_key == namespace_key
    total = func.coalesce(func.sum(versions.c.total_chunks), 0)
    joined = select(func.count(), total).join_from(documents, versions, documents.c.version_key == versions.c.key)
    count, chunk_count = connection.execute(joined.where(present)).one()
    return count, chunk_count


# --- commits -------------------------------------------------------------------------------------------------------


def oldest_commit(connection: Connection, namespace_key: int) -> int:
    row = connection.execute(select(namespaces.c.swept).where(namespaces.c.key == namespace_key)).one_or_none()
    if row is None:
        raise NotFoundError("the namespace was dropped meanwhile")
    swept: int = row.swept
    return swept


def commit_at(connection: Connection, namespace_key: int, moment: float) -> int:
    """The commit that was the present one at a moment (Unix time); 0 if that was before the first."""
    number = select(func.max(commits.c.number)).where(
        commits.c.namespace_key == namespace_key, commits.c.committed_at <= moment
    )
    return connection.execute(number).scalar_one() or 0


def begin(connection: Connection, namespace_key: int, by: str = "") -> int:
    """Note that commit E + 1 is being written, and by whom, so that a crash is known by it. Returns E + 1."""
    row = connection.execute(select(namespaces.c.commit_number).where(namespaces.c.key == namespace_key)).one_or_none()
    if row is None:
        raise NotFoundError("the namespace was dropped meanwhile")
    number: int = row.commit_number + 1
    connection.execute(
        update(namespaces).where(namespaces.c.key == namespace_key).values(pending=number, pending_by=by)
    )
    return number


def take_over(connection: Connection, namespace_key: int, by: str) -> None:
    """Put one's own name to an unfinished commit: from now on whoever began it cannot finish it."""
    pending = (namespaces.c.key == namespace_key, namespaces.c.pending.is_not(None))
    connection.execute(update(namespaces).where(*pending).values(pending_by=by))


def clear_pending(connection: Connection, namespace_key: int) -> None:
    connection.execute(
        update(namespaces).where(namespaces.c.key == namespace_key).values(pending=None, pending_by=None)
    )


def advance(connection: Connection, namespace_key: int, number: int, by: str = "") -> None:
    """Make commit `number` the present one. Raises ConflictError if it is not `by` who is writing it any more."""
    mine = (
        namespaces.c.key == namespace_key,
        namespaces.c.commit_number == number - 1,
        namespaces.c.pending == number,
        namespaces.c.pending_by == by,
    )
    last = connection.execute(select(namespaces.c.committed_at).where(namespaces.c.key == namespace_key)).scalar()
    now = max(time.time(), last or 0.0)  # a clock that goes back must not make what was just replaced look old
    values = {"commit_number": number, "committed_at": now, "pending": None, "pending_by": None}
    if connection.execute(update(namespaces).where(*mine).values(**values)).rowcount != 1:
        raise ConflictError(f"commit {number} was taken over by another process, which undid it: ingest again")
    connection.execute(insert(commits).values(namespace_key=namespace_key, number=number, committed_at=now))


# --- what a crash may leave ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What was begun in a namespace and not finished: by a crash, or by a failure that was reported."""

    state: NamespaceState
    pending_by: str | None  # the index may hold stamps above E, written by this writer ("": not known)
    is_purging: bool
    is_sweeping: bool
    is_dropping: bool

    @property
    def is_pending(self) -> bool:
        return self.pending_by is not None

    def __bool__(self) -> bool:
        return self.is_pending or self.is_purging or self.is_sweeping or self.is_dropping


def _unfinished(row: Row[*tuple[Any, ...]]) -> Unfinished:
    pending_by = None if row.pending is None else row.pending_by or ""
    return Unfinished(_state(row), pending_by, row.purging, row.sweeping, row.dropping)


def unfinished(connection: Connection, namespace_key: int) -> Unfinished | None:
    """A namespace as its writer finds it; None if it was dropped."""
    row = connection.execute(_ANY.where(namespaces.c.key == namespace_key)).one_or_none()
    return None if row is None else _unfinished(row)


def all_unfinished(connection: Connection) -> list[Unfinished]:
    """The namespaces in which something is unfinished."""
    found = map(_unfinished, connection.execute(_ANY.order_by(namespaces.c.key)).all())
    return [each for each in found if each]


# --- sweeping and dropping -----------------------------------------------------------------------------------------


def begin_sweep(connection: Connection, namespace_key: int, horizon: int) -> None:
    """From now on no commit below `horizon` can be read. It never goes back, whatever the clock does."""
    higher = (namespaces.c.key == namespace_key, namespaces.c.swept < horizon)
    connection.execute(update(namespaces).where(*higher).values(swept=horizon, sweeping=True))
    connection.execute(delete(commits).where(commits.c.namespace_key == namespace_key, commits.c.number < horizon))


def sweep_some(connection: Connection, namespace_key: int, horizon: int, limit: int) -> int:
    """Remove up to `limit` lives that ended by `horizon`, and what no life refers to any more; returns how many.

    With the last of them the sweep is finished.
    """
    ended = select(lives.c.version_key, lives.c.born).where(
        lives.c.namespace_key == namespace_key, lives.c.died <= horizon
    )
    rows = connection.execute(ended.limit(limit)).all()
    if rows:
        one = (lives.c.version_key == bindparam("key_"), lives.c.born == bindparam("born_"))
        connection.execute(delete(lives).where(*one), [{"key_": row.version_key, "born_": row.born} for row in rows])
        touched = versions.c.key.in_({row.version_key for row in rows})
        has_life = select(lives.c.version_key).where(lives.c.version_key == versions.c.key).exists()
        connection.execute(delete(versions).where(touched, ~has_life))
    if len(rows) < limit:
        connection.execute(update(namespaces).where(namespaces.c.key == namespace_key).values(sweeping=False))
    return len(rows)


def begin_drop(connection: Connection, namespace_key: int) -> None:
    connection.execute(update(namespaces).where(namespaces.c.key == namespace_key).values(dropping=True))


def finish_drop(connection: Connection, namespace_key: int) -> None:
    connection.execute(delete(namespaces).where(namespaces.c.key == namespace_key))
