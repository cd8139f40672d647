"""All that a data folder holds, as comparable lines: equal folders give equal sets of lines, whatever happened to them.

Times are left out, and of commit numbers only whether something is alive. Texts, vectors and bits stand as sha256.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import Connection, and_, func, select

from indexers.base import Index, StoredPoint
from server.base import NamespaceState
from server.catalog import Catalog
from server.catalog_documents import to_json
from server.tables import (
    chunks,
    documents,
    failures,
    lives,
    namespaces,
    purges,
    text_blocks,
    token_vectors,
    tombstones,
    versions,
)

PAGE = 500


async def dump(catalog: Catalog, index: Index) -> AsyncIterator[str]:
    """Lines of JSON, in no order that counts: documents, versions, chunks, points, and what is unfinished."""
    for row in await catalog.read(_tombstones):
        yield to_json(row)
    for collection in await catalog.collections():
        yield to_json({"kind": "collection", "collection": repr(collection)})
        for state in await catalog.namespaces(collection.spec.name):
            yield to_json(await catalog.read(_namespace, state))
            for row in await catalog.read(_beside, state):
                yield to_json(row)
            for document_id in await catalog.read(_document_ids, state):
                for row in await catalog.read(_document, document_id):
                    yield to_json(row)
            async for stored in _points(index, state):
                yield to_json({"kind": "point", "namespace": str(state.namespace), **_point(stored)})


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# --- the catalog ---------------------------------------------------------------------------------------------------


def _tombstones(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(select(tombstones)).all()
    return [{"kind": "tombstone", "id": r.document_id, "of": f"{r.collection}:{r.namespace}"} for r in rows]


def _namespace(connection: Connection, state: NamespaceState) -> dict[str, Any]:
    row = connection.execute(select(namespaces).where(namespaces.c.key == state.id)).one()
    unfinished = {"pending": row.pending is not None, "sweeping": row.sweeping, "dropping": row.dropping}
    return {"kind": "namespace", "namespace": str(state.namespace), **unfinished}


def _beside(connection: Connection, state: NamespaceState) -> list[dict[str, Any]]:
    unread = connection.execute(select(failures).where(failures.c.namespace_key == state.id)).all()
    unpurged = connection.execute(select(purges).where(purges.c.namespace_key == state.id)).all()
    return [
        *({"kind": "failure", "uri": row.uri, "reason": row.reason, "detail": row.detail} for row in unread),
        *({"kind": "purge", "id": row.document_id, "chunk_ids": row.chunk_ids} for row in unpurged),
    ]


def _document_ids(connection: Connection, state: NamespaceState) -> list[str]:
    ids = select(documents.c.id).where(documents.c.namespace_key == state.id).order_by(documents.c.id)
    return list(connection.execute(ids).scalars())


def _document(connection: Connection, document_id: str) -> list[dict[str, Any]]:
    row = connection.execute(select(documents).where(documents.c.id == document_id)).one()
    beside = ("id", "uri", "media_type", "source_sha256", "extractor", "metadata", "groups")
    found: list[dict[str, Any]] = [{"kind": "document", **{name: getattr(row, name) for name in beside}}]
    for version in connection.execute(select(versions).where(versions.c.document_id == document_id)).all():
        found.append(_version(connection, version.key, is_present=version.key == row.version_key))
        found.extend(_chunks(connection, version.key))
    return found


def _version(connection: Connection, key: int, *, is_present: bool) -> dict[str, Any]:
    row = connection.execute(select(versions).where(versions.c.key == key)).one()
    blocks = select(text_blocks.c.text).where(text_blocks.c.version_key == key).order_by(text_blocks.c.block)
    text = "".join(connection.execute(blocks).scalars())
    alive = select(func.count()).where(lives.c.version_key == key, lives.c.died.is_(None))
    names = ("document_id", "version", "title", "marks", "chunking", "size_chars", "total_chunks")
    return {
        "kind": "version",
        **{name: getattr(row, name) for name in names},
        "text": _sha256(text.encode()),
        "is_present": is_present,
        "lives": connection.execute(alive).scalar_one(),
    }


def _chunks(connection: Connection, version_key: int) -> list[dict[str, Any]]:
    same = and_(token_vectors.c.version_key == chunks.c.version_key, token_vectors.c.number == chunks.c.number)
    joined = select(chunks, token_vectors.c.fingerprint, token_vectors.c.bits).outerjoin(token_vectors, same)
    names = ("id", "number", "start_char", "end_char", "page", "heading_path", "token_count", "fingerprint")
    return [
        {"kind": "chunk", **{name: getattr(row, name) for name in names}, "token_bits": _sha256(row.bits or b"")}
        for row in connection.execute(joined.where(chunks.c.version_key == version_key)).all()
    ]


# --- the index -----------------------------------------------------------------------------------------------------


async def _points(index: Index, state: NamespaceState) -> AsyncIterator[StoredPoint]:
    after: str | None = None
    while state.commit:
        points, after = await index.scan(state.namespace, None, after, PAGE)
        for stored in points:
            yield stored
        if after is None:
            return


def _point(stored: StoredPoint) -> dict[str, Any]:
    point = stored.point
    return {
        "id": point.id,
        "vector": _sha256(point.vector.tobytes()),
        "text": point.text,
        "metadata": dict(point.metadata),
        "document_id": point.document_id,
        "span": [point.start, point.end],
        "groups": sorted(point.groups),
        "is_alive": stored.died is None,
    }
