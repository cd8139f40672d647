"""Reading documents, their chunks and their text from the catalog. Functions of one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from sqlalchemy import ColumnElement, Connection, Integer, Row, and_, bindparam, func, or_, select

from indexers.base import Mark, Metadata
from models.base import UInt8
from server.base import GoneError, InvalidRequestError, NotFoundError, StoredChunk, StoredDocument, is_readable
from server.by_ids import ByIds
from server.tables import (
    TEXT_BLOCK_CHARS,
    chunks,
    collections,
    documents,
    lives,
    namespaces,
    text_blocks,
    token_vectors,
    tombstones,
    versions,
)

LOOKUP_BATCH = 500  # uris or ids in one statement
NEVER = 2**31 - 1  # later than any commit: the largest number that its column holds


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document is, or was: of a deleted one the namespace may be gone too."""

    collection: str
    namespace: str
    is_deleted: bool = False


_DOCUMENT = (
    select(
        documents,
        versions.c.version,
        versions.c.title,
        versions.c.chunking,
        versions.c.size_chars,
        versions.c.total_chunks,
        lives.c.born,
    )
    .join_from(documents, versions, documents.c.version_key == versions.c.key)
    .join(lives, and_(lives.c.version_key == versions.c.key, lives.c.died.is_(None)))
)
_IN_NAMESPACE = documents.c.namespace_key == bindparam("namespace_key")
_PAGE = (
    _DOCUMENT.where(_IN_NAMESPACE, documents.c.uri > bindparam("after"))
    .order_by(documents.c.uri)
    .limit(bindparam("limit", type_=Integer))
)
_BY_ID = _DOCUMENT.where(_IN_NAMESPACE, documents.c.id == bindparam("id"))
_BY_IDS = _DOCUMENT.where(_IN_NAMESPACE, documents.c.id.in_(bindparam("ids", expanding=True)))
_BY_URIS = _DOCUMENT.where(
    _IN_NAMESPACE, documents.c.uri.in_(bindparam("uris", expanding=True)), documents.c.source_sha256 != ""
)

_ASKED = chunks.c.id.in_(bindparam("ids", expanding=True))
_CHUNKS = (
    select(  # in the order in which _chunk takes a row apart
        chunks.c.id,
        text_blocks.c.block,
        text_blocks.c.text,
        chunks.c.start_char,
        chunks.c.end_char,
        chunks.c.heading_path,
        documents.c.metadata,
        documents.c.groups,
        documents.c.id,
        versions.c.version,
        documents.c.uri,
        versions.c.title,
        chunks.c.number,
        versions.c.total_chunks,
        chunks.c.page,
        chunks.c.token_count,
        namespaces.c.swept,
    )
    .join_from(chunks, versions, chunks.c.version_key == versions.c.key)
    .join(documents, versions.c.document_id == documents.c.id)
    .join(namespaces, documents.c.namespace_key == namespaces.c.key)
    .join(
        lives,
        and_(
            lives.c.version_key == versions.c.key,
            lives.c.born <= bindparam("snapshot"),
            or_(lives.c.died.is_(None), lives.c.died > bindparam("snapshot")),
        ),
    )
    .outerjoin(
        text_blocks,
        and_(
            text_blocks.c.version_key == versions.c.key,
            text_blocks.c.block.between(
                chunks.c.start_char // TEXT_BLOCK_CHARS, (chunks.c.end_char - 1) // TEXT_BLOCK_CHARS
            ),
        ),
    )
    .where(_ASKED, _IN_NAMESPACE)
)
_TOKEN_BITS = (
    select(chunks.c.id, token_vectors.c.token_count, token_vectors.c.bits)
    .join_from(
        chunks,
        token_vectors,
        and_(token_vectors.c.version_key == chunks.c.version_key, token_vectors.c.number == chunks.c.number),
    )
    .where(_ASKED, token_vectors.c.fingerprint == bindparam("fingerprint"))
)


_CHUNKS_BY_ID, _TOKEN_BITS_BY_ID = ByIds(_CHUNKS), ByIds(_TOKEN_BITS)


def to_json(value: object) -> str:
    """JSON with sorted keys: equal values are equal texts."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _metadata(text: str) -> Metadata:
    return orjson.loads(text) if text != "{}" else {}


def _strings(text: str) -> tuple[str, ...]:
    return tuple(orjson.loads(text)) if text != "[]" else ()


def _document(row: Row[*tuple[Any, ...]]) -> StoredDocument:
    return StoredDocument(
        id=row.id,
        uri=row.uri,
        title=row.title,
        media_type=row.media_type,
        version=row.version,
        source_sha256=row.source_sha256,
        extractor=row.extractor,
        chunking=row.chunking,
        metadata=_metadata(row.metadata),
        groups=_strings(row.groups),
        size_chars=row.size_chars,
        total_chunks=row.total_chunks,
        born=row.born,
        created_at=row.created_at,
        updated_at=row.updated_at,
        original=row.original,
        source_mark=row.source_mark,
    )


# --- documents -----------------------------------------------------------------------------------------------------


def page(
    connection: Connection, namespace_key: int, after: str | None, limit: int, *, groups: frozenset[str] | None
) -> tuple[list[StoredDocument], str | None]:
    wanted = _PAGE if groups is None else _PAGE.where(_names_one_of(groups))
    found: list[StoredDocument] = []
    while True:
        parameters = {"namespace_key": namespace_key, "after": after or "", "limit": limit + 1}
        rows = [_document(row) for row in connection.execute(wanted, parameters)]
        found += [document for document in rows if is_readable(document.groups, groups)]
        if len(found) > limit:
            return found[:limit], found[limit - 1].uri
        if len(rows) <= limit:
            return found, None
        after = rows[-1].uri


def _names_one_of(groups: frozenset[str]) -> ColumnElement[bool]:
    """Whether a document's ACL, as its JSON is written, may name one of these groups, or nobody: some too many."""
    named = (documents.c.groups.contains(to_json(group), autoescape=True) for group in sorted(groups))
    return or_(documents.c.groups == to_json([]), *named)


def document(connection: Connection, namespace_key: int, document_id: str) -> StoredDocument:
    row = connection.execute(_BY_ID, {"namespace_key": namespace_key, "id": document_id}).one_or_none()
    if row is None:
        raise absent(connection, document_id)
    return _document(row)


def some(connection: Connection, namespace_key: int, ids: Sequence[str]) -> dict[str, StoredDocument]:
    found: dict[str, StoredDocument] = {}
    for at in range(0, len(ids), LOOKUP_BATCH):
        batch = {"namespace_key": namespace_key, "ids": list(ids[at : at + LOOKUP_BATCH])}
        found.update((row.id, _document(row)) for row in connection.execute(_BY_IDS, batch))
    return found


def lookup(connection: Connection, namespace_key: int, uris: Sequence[str]) -> dict[str, StoredDocument]:
    found: dict[str, StoredDocument] = {}
    for at in range(0, len(uris), LOOKUP_BATCH):
        batch = {"namespace_key": namespace_key, "uris": list(uris[at : at + LOOKUP_BATCH])}
        found.update((row.uri, _document(row)) for row in connection.execute(_BY_URIS, batch))
    return found


def locate(connection: Connection, document_id: str) -> Place:
    joined = select(collections.c.name, namespaces.c.name.label("namespace")).select_from(
        documents.join(namespaces).join(collections)
    )
    row = connection.execute(joined.where(documents.c.id == document_id, ~namespaces.c.dropping)).one_or_none()
    if row is not None:
        return Place(row.name, row.namespace)
    grave = connection.execute(select(tombstones).where(tombstones.c.document_id == document_id)).one_or_none()
    if grave is not None:
        return Place(grave.collection, grave.namespace, is_deleted=True)
    raise absent(connection, document_id)


def absent(connection: Connection, document_id: str) -> GoneError | NotFoundError:
    """What is to be said of a document that is not there."""
    if connection.execute(select(tombstones).where(tombstones.c.document_id == document_id)).one_or_none() is not None:
        return gone(document_id)
    return NotFoundError(f"there is no document {document_id!r}")


def gone(document_id: str) -> GoneError:
    return GoneError(f"document {document_id!r} was deleted, with every version of it")


# --- text ----------------------------------------------------------------------------------------------------------


def text(connection: Connection, document_id: str, version: str | None, *, start: int, end: int | None) -> str:
    key, size_chars = _version(connection, document_id, version)
    end = size_chars if end is None else end
    if not 0 <= start <= end <= size_chars:
        raise InvalidRequestError(f"[{start}, {end}) is no span of a text of {size_chars} characters", "start")
    blocks = (
        select(text_blocks.c.text)
        .where(
            text_blocks.c.version_key == key,
            text_blocks.c.block.between(start // TEXT_BLOCK_CHARS, max(start, end - 1) // TEXT_BLOCK_CHARS),
        )
        .order_by(text_blocks.c.block)
    )
    joined = "".join(connection.execute(blocks).scalars())
    skipped = start // TEXT_BLOCK_CHARS * TEXT_BLOCK_CHARS
    return joined[start - skipped : end - skipped]


def _version(connection: Connection, document_id: str, version: str | None) -> tuple[int, int]:
    """(key, characters) of a retained version; None: the present one."""
    wanted = select(versions.c.key, versions.c.size_chars).where(versions.c.document_id == document_id)
    if version is None:
        wanted = wanted.join_from(versions, documents, documents.c.version_key == versions.c.key)
    else:
        wanted = wanted.where(versions.c.version == version)
    row = connection.execute(wanted).one_or_none()
    if row is not None:
        return row.key, row.size_chars
    known = connection.execute(select(documents.c.id).where(documents.c.id == document_id)).one_or_none()
    if known is None:
        raise absent(connection, document_id)
    raise NotFoundError(
        f"document {document_id!r} has no version {version!r}, or no longer: replaced ones are kept for the retention"
    )


def marks(connection: Connection, document_id: str, version: str | None) -> tuple[Mark, ...]:
    key, _ = _version(connection, document_id, version)
    stored = orjson.loads(connection.execute(select(versions.c.marks).where(versions.c.key == key)).scalar_one())
    return tuple(Mark(*mark) for mark in stored)


# --- chunks --------------------------------------------------------------------------------------------------------


def chunks_by_id(
    connection: Connection, namespace_key: int, ids: Sequence[str], *, snapshot: int, token_bits_of: str | None
) -> dict[str, StoredChunk]:
    bits: dict[str, UInt8] = {}
    if token_bits_of is not None:
        packed = _TOKEN_BITS_BY_ID.rows(connection, ids, fingerprint=token_bits_of)
        bits = {id_: np.frombuffer(data, np.uint8).reshape(count, -1) for id_, count, data in packed}
    rows = _CHUNKS_BY_ID.rows(connection, ids, namespace_key=namespace_key, snapshot=snapshot)
    blocks: dict[str, dict[int, str]] = {}  # a chunk has a row for each block of text that it touches
    for row in rows:
        if row[-1] > snapshot:
            raise GoneError(f"commit {snapshot} can no longer be read: versions before {row[-1]} were swept")
        blocks.setdefault(row[0], {})[row[1]] = row[2]
    return {row[0]: _chunk(row, blocks[row[0]], bits) for row in rows}


def chunks_by_home(
    connection: Connection, asked: Iterable[tuple[int, Sequence[str], int]], *, token_bits_of: str | None
) -> dict[str, StoredChunk]:
    """Of several namespaces: each key with the ids to look up there, and the commit to read at."""
    found: dict[str, StoredChunk] = {}
    for key, ids, snapshot in asked:
        found |= chunks_by_id(connection, key, ids, snapshot=snapshot, token_bits_of=token_bits_of)
    return found


def _chunk(row: Sequence[Any], blocks: dict[int, str], bits: dict[str, UInt8]) -> StoredChunk:
    (id_, _, text, start, end, heading_path, metadata, groups, *rest, _) = row
    document_id, version, uri, title, index, total_chunks, page, token_count = rest
    if len(blocks) > 1:
        text = "".join(blocks[number] for number in sorted(blocks))
    skipped = start // TEXT_BLOCK_CHARS * TEXT_BLOCK_CHARS
    return StoredChunk(
        id=id_,
        document_id=document_id,
        version=version,
        uri=uri,
        title=title,
        index=index,
        total_chunks=total_chunks,
        start=start,
        end=end,
        page=page,
        heading_path=_strings(heading_path),
        token_count=token_count,
        text=text[start - skipped : end - skipped],
        metadata=_metadata(metadata),
        groups=_strings(groups),
        token_bits=bits.get(id_),
    )


def live_chunk_ids(connection: Connection, namespace_key: int, after: str | None, limit: int) -> list[tuple[str, str]]:
    """A page of (chunk id, document id) of present versions, by chunk id."""
    joined = (
        select(chunks.c.id, documents.c.id.label("document_id"))
        .select_from(chunks)
        .join(documents, documents.c.version_key == chunks.c.version_key)
    )
    paged = joined.where(documents.c.namespace_key == namespace_key, chunks.c.id > (after or ""))
    return [(row.id, row.document_id) for row in connection.execute(paged.order_by(chunks.c.id).limit(limit))]


def known_chunk_ids(connection: Connection, ids: Sequence[str]) -> dict[str, int | None]:
    """Of these chunk ids, those the catalog has, each with when its last life ended (None: it is alive)."""
    last = func.max(func.coalesce(lives.c.died, NEVER)).label("died")
    joined = select(chunks.c.id, last).join_from(chunks, lives, chunks.c.version_key == lives.c.version_key)
    rows = connection.execute(joined.where(chunks.c.id.in_(ids)).group_by(chunks.c.id))
    return {row.id: None if row.died == NEVER else row.died for row in rows}
