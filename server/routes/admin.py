"""For the people who run the desk: status, and ingestion from a path for commands on this very machine."""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

import server
from indexers.read import sources
from server.access import resolve_one
from server.auth import LOCAL
from server.base import ForbiddenError
from server.build import Desk
from server.data_folder import is_own
from server.fetch import Sources
from server.ingest import Receipt, Tally, Target
from server.repair import repair
from server.routes import Admin, Face, error_line, face_of, json_response, new_router
from server.routes.documents import count_receipt
from server.s3_sources import s3_sources
from server.schemas.documents import MetadataBody, progress_reply, receipt_reply
from server.stream import EventStream, Feed, event_line

router = new_router()
PROGRESS_S = 0.1  # between two reports of an ingestion


class IngestBody(BaseModel):
    """A file or folder on this machine, or s3://bucket/prefix, and where its documents go."""

    model_config = ConfigDict(extra="forbid")

    path: str
    collection: str | None = None
    namespace: str | None = None
    groups: list[str] | None = None
    metadata: MetadataBody = {}
    prune: bool = False


@router.post("/v1/local/ingest")
async def ingest(body: IngestBody, request: Request, caller: Admin) -> Response:
    """Ingest a path of this machine, or s3:// by the settings' keys, as server-sent events: progress, then the receipt.

    Only for the lock file's token: who can read the data folder may name paths, a key's holder elsewhere may not.
    """
    if caller is not LOCAL:
        raise ForbiddenError("only a command on the server's own machine may name paths: upload the files instead")
    face = face_of(request)
    collection = body.collection or face.desk.settings.collection
    namespace = resolve_one(caller, collection, body.namespace)
    groups = None if body.groups is None else tuple(sorted(set(body.groups) - {""}))
    target = Target(collection, namespace, groups, body.metadata, body.prune)
    feed = await Feed(_ingest(face, body.path, target), request.receive).opened()
    return EventStream(feed, error_line(face))


async def _ingest(face: Face, path: str, target: Target) -> AsyncGenerator[bytes, None]:
    found: Sources
    latest = Tally()
    if path.startswith("s3://"):
        found = s3_sources(face.desk.s3, path)
    else:
        found = await asyncio.to_thread(lambda: list(sources(Path(path), is_own)))
        latest.sources = len(found)

    def note(tally: Tally) -> None:
        nonlocal latest
        latest = tally

    task: asyncio.Task[Receipt] = asyncio.create_task(face.desk.pipeline.ingest(found, target, note))
    try:
        while not task.done():
            yield event_line(progress_reply(latest))
            await asyncio.wait({task}, timeout=PROGRESS_S)
    finally:
        task.cancel()
        await asyncio.wait({task})
    receipt = task.result()
    count_receipt(face.metrics, receipt)
    yield event_line(receipt_reply(receipt))


@router.post("/v1/repair")
async def repair_desk(request: Request, _: Admin) -> Response:
    """Make index and catalog agree again; what was found, and set right, by kind."""
    desk = face_of(request).desk
    report = await repair(desk.catalog, desk.index, desk.writer, desk.originals)
    return json_response({"object": "repair", "found": asdict(report)})


@router.get("/v1/status")
async def status(request: Request, _: Admin) -> Response:
    """What the desk holds: documents, chunks and sources set aside a namespace, models, bytes on disk."""
    desk = face_of(request).desk
    models = desk.pipeline.models
    embedder = models.embedder.info
    names = {
        "embedder": embedder.name,
        "precision": embedder.precision,
        "reranker": models.reranking.reranker.info.name if models.reranking else None,
        "generator": models.generator.info.name,
    }
    return json_response(
        {
            "object": "status",
            "version": server.__version__,
            "models": names,
            "collections": await _collections(desk),
            "size_bytes": await asyncio.to_thread(_sizes, desk.settings.data_dir),
        }
    )


async def _collections(desk: Desk) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for collection in await desk.catalog.collections():
        namespaces = []
        for state in await desk.catalog.namespaces(collection.spec.name):
            documents, chunks = await desk.catalog.statistics(state.id)
            counts = {"documents": documents, "chunks": chunks, "failed": await desk.catalog.count_failures(state.id)}
            namespaces.append({"name": state.namespace.name, "commit": state.commit, **counts})
        found.append({"name": collection.spec.name, "embedder": collection.embedder, "namespaces": namespaces})
    return found


def _sizes(data_dir: Path) -> dict[str, int]:
    """Bytes that the entries of the data folder take on disk; holes in preallocated files take none."""
    return {entry.name: _on_disk(entry) + _below(entry) for entry in sorted(data_dir.iterdir())}


def _below(entry: Path) -> int:
    return sum(_on_disk(Path(path, name)) for path, folders, files in os.walk(entry) for name in (*folders, *files))


def _on_disk(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512  # POSIX's unit of st_blocks, whatever the filesystem's
    except FileNotFoundError:  # moved or removed since it was listed
        return 0
