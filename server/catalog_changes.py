"""What a commit writes into the catalog: a plan, in one transaction; and what remains to be done after one."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from server import catalog_jobs, catalog_keys, catalog_names, catalog_originals
from server.base import NamespaceState, PreparedDocument
from server.catalog_documents import LOOKUP_BATCH, to_json
from server.catalog_plan import Plan, chunk_ids, origin_of
from server.faults import reach
from server.tables import (
    TEXT_BLOCK_CHARS,
    chunks,
    documents,
    lives,
    purges,
    text_blocks,
    token_vectors,
    tombstones,
    versions,
)

ROWS = 512  # rows handed to the driver at once: bounds memory, and how long the writer's thread keeps the interpreter


def apply(connection: Connection, plan: Plan, by: str = "") -> None:
    """Write the whole commit and make it the present one; all of it or nothing.

    Raises ConflictError if another process took the commit over from the writer `by`.
    """
    now = time.time()
    _end_lives(connection, plan)
    _delete(connection, plan, now)
    catalog_originals.lose(connection, plan.lost_originals)
    reach("commit.catalog_deleted")
    version_keys = _write_versions(connection, plan)
    _write_documents(connection, plan, version_keys, now)
    _keep_documents(connection, plan, now)
    _patch_documents(connection, plan, now)
    reach("commit.catalog_written")
    catalog_names.advance(connection, plan.namespace.id, plan.number, by)
    reach("commit.catalog_advanced")


def _end_lives(connection: Connection, plan: Plan) -> None:
    ended = [stored.id for stored in plan.ended]
    for at in range(0, len(ended), LOOKUP_BATCH):
        of_these = select(documents.c.version_key).where(documents.c.id.in_(ended[at : at + LOOKUP_BATCH]))
        still_alive = (lives.c.version_key.in_(of_these), lives.c.died.is_(None))
        connection.execute(update(lives).where(*still_alive).values(died=plan.number))


def _delete(connection: Connection, plan: Plan, now: float) -> None:
    """Remove deleted documents with every version; note what the index must still forget, and that they were here."""
    names = plan.namespace.namespace
    for stored in plan.deleted:
        every = select(chunks.c.id).join_from(chunks, versions).where(versions.c.document_id == stored.id)
        ids = list(connection.execute(every).scalars())
        row = {"namespace_key": plan.namespace.id, "document_id": stored.id, "chunk_ids": to_json(ids)}
        connection.execute(insert(purges).values(row))
        connection.execute(delete(documents).where(documents.c.id == stored.id))
        catalog_keys.clear_failure(connection, plan.namespace.id, stored.uri)
    if plan.deleted:
        place = {"collection": names.collection.name, "namespace": names.name, "deleted_at": now}
        connection.execute(insert(tombstones), [{"document_id": stored.id, **place} for stored in plan.deleted])


def _write_versions(connection: Connection, plan: Plan) -> dict[str, int]:
    """Begin a life of every written text, and store those not kept from an earlier life; document id → version key."""
    keys: dict[str, int] = {}
    ids = [prepared.id for prepared in plan.written]
    wanted = {prepared.id: prepared.version for prepared in plan.written}
    for at in range(0, len(ids), LOOKUP_BATCH):
        kept = select(versions.c.key, versions.c.document_id, versions.c.version)
        found = connection.execute(kept.where(versions.c.document_id.in_(ids[at : at + LOOKUP_BATCH])))
        keys.update((row.document_id, row.key) for row in found if wanted[row.document_id] == row.version)
    new = [prepared for prepared in plan.written if prepared.id not in keys]
    if new:
        added = insert(versions).returning(versions.c.key, versions.c.document_id)
        keys.update((row.document_id, row.key) for row in connection.execute(added, [_version(p) for p in new]))
    for table, rows in (
        (text_blocks, (row for p in new for row in _text_blocks(keys[p.id], p))),
        (chunks, (row for p in new for row in _chunks(keys[p.id], p, plan.namespace))),
        (token_vectors, (row for p in new for row in _token_vectors(keys[p.id], p, plan.token_bits_of))),
    ):
        for batch in _batches(rows):
            connection.execute(insert(table), batch)
    if keys:
        born = {"born": plan.number, "died": None, "namespace_key": plan.namespace.id}
        connection.execute(insert(lives), [{"version_key": key, **born} for key in keys.values()])
    return keys


def _batches(rows: Iterable[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    batch: list[dict[str, object]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _version(prepared: PreparedDocument) -> dict[str, object]:
    document = prepared.document
    return {
        "document_id": prepared.id,
        "version": prepared.version,
        "title": document.title,
        "marks": to_json([[mark.kind, mark.start, mark.level, mark.text] for mark in document.marks]),
        "chunking": prepared.chunking,
        "size_chars": len(document.text),
        "total_chunks": len(prepared.chunks),
    }


def _text_blocks(key: int, prepared: PreparedDocument) -> Iterator[dict[str, object]]:
    text = prepared.document.text
    for at in range(0, len(text), TEXT_BLOCK_CHARS):
        yield {"version_key": key, "block": at // TEXT_BLOCK_CHARS, "text": text[at : at + TEXT_BLOCK_CHARS]}


def _chunks(key: int, prepared: PreparedDocument, namespace: NamespaceState) -> Iterator[dict[str, object]]:
    ids = chunk_ids(namespace, prepared.id, prepared.version, len(prepared.chunks))
    for id_, chunk in zip(ids, prepared.chunks, strict=True):
        yield {
            "id": id_,
            "version_key": key,
            "number": chunk.index,
            "start_char": chunk.start,
            "end_char": chunk.end,
            "page": chunk.page,
            "heading_path": to_json(chunk.heading_path),
            "token_count": chunk.token_count,
        }


def _token_vectors(key: int, prepared: PreparedDocument, fingerprint: str) -> Iterator[dict[str, object]]:
    for chunk, embedding in zip(prepared.chunks, prepared.embeddings, strict=True):
        if embedding.token_bits is not None:
            yield {
                "version_key": key,
                "number": chunk.index,
                "fingerprint": fingerprint,
                "token_count": len(embedding.token_bits),
                "bits": embedding.token_bits.tobytes(),
            }


def _beside(prepared: PreparedDocument, plan: Plan, now: float) -> dict[str, object]:
    """What is kept of a document beside its text."""
    origin = origin_of(prepared, plan.present.get(prepared.id))
    return {
        "original": origin.original,
        "source_mark": origin.source_mark,
        "media_type": prepared.document.media_type,
        "source_sha256": prepared.document.source_sha256,
        "extractor": prepared.document.extractor,
        "metadata": to_json(dict(prepared.document.metadata)),
        "groups": to_json(prepared.groups),
        "updated_at": now,
    }


def _write_documents(connection: Connection, plan: Plan, version_keys: dict[str, int], now: float) -> None:
    place = {"namespace_key": plan.namespace.id, "created_at": now}
    added = [
        {"id": p.id, "uri": p.document.uri, "version_key": version_keys[p.id], **place, **_beside(p, plan, now)}
        for p in plan.written
        if p.id not in plan.present
    ]
    replaced = [
        {"id_": p.id, "version_key": version_keys[p.id], **_beside(p, plan, now)}
        for p in plan.written
        if p.id in plan.present
    ]
    if added:
        connection.execute(delete(tombstones).where(tombstones.c.document_id == bindparam("id_")), _ids(added))
        connection.execute(insert(documents), added)
    _update_documents(connection, replaced)


def _ids(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    return [{"id_": row["id"]} for row in rows]


def _keep_documents(connection: Connection, plan: Plan, now: float) -> None:
    _update_documents(connection, [{"id_": prepared.id, **_beside(prepared, plan, now)} for prepared in plan.kept])


def _patch_documents(connection: Connection, plan: Plan, now: float) -> None:
    rows: list[dict[str, object]] = [
        {
            "id_": patched.stored.id,
            "source_sha256": patched.source_sha256,
            "extractor": patched.extractor,
            "original": patched.origin.original,
            "source_mark": patched.origin.source_mark,
            "metadata": to_json(dict(patched.metadata)),
            "groups": to_json(patched.groups),
            "updated_at": now,
        }
        for patched in plan.patched
    ]
    _update_documents(connection, rows)


def _update_documents(connection: Connection, rows: list[dict[str, object]]) -> None:
    if rows:
        columns: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in rows[0] if name != "id_"}
        connection.execute(update(documents).where(documents.c.id == bindparam("id_")).values(**columns), rows)


# --- after the commit ----------------------------------------------------------------------------------------------


def unfinished_purges(connection: Connection, namespace_key: int) -> list[tuple[str, list[str]]]:
    """(document id, chunk ids) that the index must still forget."""
    rows = connection.execute(select(purges).where(purges.c.namespace_key == namespace_key))
    return [(row.document_id, orjson.loads(row.chunk_ids)) for row in rows]


def finish_purges(connection: Connection, namespace_key: int, document_ids: Sequence[str]) -> None:
    one = (purges.c.namespace_key == namespace_key, purges.c.document_id == bindparam("id_"))
    connection.execute(delete(purges).where(*one), [{"id_": id_} for id_ in document_ids])


def forget_source(connection: Connection, document_ids: Sequence[str]) -> list[str]:
    """Ask for documents to be ingested again, whatever their source's hash; returns those not asked for before."""
    one = (documents.c.id == bindparam("id_"), documents.c.source_sha256 != "")
    forget = update(documents).where(*one).values(source_sha256="")
    return [id_ for id_ in document_ids if connection.execute(forget, {"id_": id_}).rowcount]


def begin_drop(connection: Connection, namespace: NamespaceState) -> None:
    """From now on nobody sees the namespace, and no upload that was taken in for it makes it anew."""
    catalog_names.begin_drop(connection, namespace.id)
    catalog_jobs.cancel_all(connection, namespace.namespace.collection.name, namespace.namespace.name)


def drop_documents(connection: Connection, namespace: NamespaceState, limit: int) -> int:
    """Remove up to `limit` documents of a namespace that is being dropped, leaving tombstones; returns how many."""
    some = select(documents.c.id, documents.c.original).where(documents.c.namespace_key == namespace.id).limit(limit)
    rows = connection.execute(some).all()
    ids = [row.id for row in rows]
    if ids:
        names = namespace.namespace
        place = {"collection": names.collection.name, "namespace": names.name, "deleted_at": time.time()}
        connection.execute(delete(tombstones).where(tombstones.c.document_id.in_(ids)))
        connection.execute(insert(tombstones), [{"document_id": id_, **place} for id_ in ids])
        catalog_originals.lose(connection, [row.original for row in rows])
        connection.execute(delete(documents).where(documents.c.id.in_(ids)))
    return len(ids)
