"""Documents: upload, list, read, patch, delete, text by span, the original; POST /v1/citations/verify."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated
from urllib.parse import quote

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from indexers.sources import Upload
from server.access import no_document, readable, resolve_one
from server.auth import check_again
from server.base import InvalidRequestError, NotFoundError, StoredDocument, document_id, is_readable
from server.check import Claim, read_span, verify
from server.ingest import Receipt, Target
from server.metrics import Metrics
from server.originals import Originals
from server.routes import Reader, Writer, face_of, json_response, new_router, page_response
from server.schemas.documents import (
    DeleteBody,
    PatchBody,
    VerifyBody,
    Whole,
    background_field,
    document_reply,
    groups_field,
    metadata_field,
    receipt_reply,
    text_field,
    uploads,
    uris_of,
)
from server.schemas.jobs import job_reply

router = new_router()
MAX_FILES = 256  # of one upload


@router.post("/v1/documents")
async def upload(request: Request, caller: Writer) -> Response:
    """Ingest the files of a multipart form; returns when they can be searched. All unreadable: 422.

    With `background=true` it returns when they are safe (202), and a job does the rest.
    """
    face = face_of(request)
    if request.query_params:
        field = min(request.query_params)
        raise InvalidRequestError(f"{field!r:.100} came in the URL: send it as a form field", field)
    body = Whole(request.receive)
    async with Request(request.scope, body).form(max_files=MAX_FILES, max_fields=64) as form:
        body.check(request.headers.get("content-type", ""))
        await check_again(request)
        files = uploads(form)
        collection = text_field(form, "collection") or face.desk.settings.collection
        namespace = resolve_one(caller, collection, text_field(form, "namespace"))
        target = Target(collection, namespace, groups_field(form), metadata_field(form))
        named = zip(uris_of(files), files, strict=True)
        sent = [Upload(uri, f.file, f.content_type) for uri, f in named]
        if background_field(form):
            job = await face.desk.jobs.add(sent, target, caller.key_id)
            return json_response(job_reply(job), 202, {"Location": f"/v1/jobs/{job.id}"})
        receipt = await face.desk.pipeline.ingest(sent, target)
    count_receipt(face.metrics, receipt)
    if receipt.tally.failures and not any(_outcomes(receipt).values()):
        raise receipt.tally.failures[0]
    return json_response(receipt_reply(receipt), 201)


def count_receipt(metrics: Metrics, receipt: Receipt) -> None:
    """Put an ingestion into the metrics."""
    metrics.count_documents({**_outcomes(receipt), "failed": len(receipt.tally.failures)}, receipt.stages_s)
    metrics.tokens.labels("ingested").inc(receipt.tally.tokens)


def _outcomes(receipt: Receipt) -> dict[str, int]:
    tally = receipt.tally
    return {
        "added": tally.added,
        "replaced": tally.replaced,
        "patched": tally.patched,
        "unchanged": tally.unchanged,
    }


@router.get("/v1/documents")
async def list_documents(
    request: Request,
    caller: Reader,
    collection: str | None = None,
    namespace: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """A page of a namespace's documents by uri; `next` is the `after` of the next page."""
    desk = face_of(request).desk
    collection = collection or desk.settings.collection
    namespace = resolve_one(caller, collection, namespace)
    state = (await desk.catalog.snapshot(collection, [namespace]))[namespace]
    page, cursor = await desk.catalog.documents(state.id, after, limit, groups=caller.groups)
    data = [document_reply(document, collection, namespace, caller) for document in page]
    return page_response(data, cursor)


@router.get("/v1/documents/{document_id}")
async def get_document(document_id: str, request: Request, caller: Reader) -> Response:
    """One document."""
    state, document = await readable(face_of(request).desk.catalog, caller, document_id)
    collection = state.namespace.collection.name
    return json_response(document_reply(document, collection, state.namespace.name, caller))


@router.patch("/v1/documents/{document_id}")
async def patch_document(document_id: str, body: PatchBody, request: Request, caller: Writer) -> Response:
    """Add to a document's metadata, or say anew who may read it; its text stays. The reply is the document then."""
    desk = face_of(request).desk
    patch = body.of(document_id)
    state, _ = await readable(desk.catalog, caller, document_id)
    await desk.pipeline.patch(state, patch)
    document = await desk.catalog.document(state.id, document_id)
    if document.groups != patch.groups and not is_readable(document.groups, caller.groups):
        raise no_document(document_id)  # another writer hid it a moment ago
    return json_response(document_reply(document, state.namespace.collection.name, state.namespace.name, caller))


@router.delete("/v1/documents/{document_id}")
async def delete_document(document_id: str, request: Request, caller: Writer) -> Response:
    """Delete every version of a document, for good."""
    desk = face_of(request).desk
    state, _ = await readable(desk.catalog, caller, document_id)
    deleted = await desk.pipeline.delete_named(state, [document_id], caller.groups)
    if not deleted.documents:  # another writer was faster: it is gone, or not the caller's to read any more
        await readable(desk.catalog, caller, document_id)
    reply = {"object": "document.deleted", "id": document_id, "deleted": True, "commit": deleted.commit}
    return json_response(reply)


@router.post("/v1/documents/delete")
async def delete_documents(body: DeleteBody, request: Request, caller: Writer) -> Response:
    """Delete the documents of a namespace that are named, or that a filter finds, of those that the caller may read."""
    desk = face_of(request).desk
    body.check()
    wanted = body.parsed_filter()
    collection = body.collection or desk.settings.collection
    namespace = resolve_one(caller, collection, body.namespace)
    state = await desk.catalog.namespace(collection, namespace)
    if wanted is not None:
        deleted = await desk.pipeline.delete_matching(state, wanted, caller.groups)
    else:
        ids = body.ids or [document_id(collection, namespace, uri) for uri in body.uris or ()]
        deleted = await desk.pipeline.delete_named(state, ids, caller.groups)
    return json_response({"object": "documents.deleted", "deleted": deleted.documents, "commit": deleted.commit})


@router.get("/v1/documents/{document_id}/text")
async def get_text(
    document_id: str,
    request: Request,
    caller: Reader,
    version: str | None = None,
    start: Annotated[int, Query(ge=0)] = 0,
    end: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """The exact words of a span, in the version cited or the present one."""
    catalog = face_of(request).desk.catalog
    span = await read_span(catalog, caller, document_id, version=version, start=start, end=end)
    headers = _cached_by(f"{span.version}-{span.start}-{span.end}")
    if _has(request, headers):
        return Response(status_code=304, headers=headers)
    pages = [m.level for m in await catalog.marks(document_id, span.version) if m.kind == "page" and m.start <= start]
    place = {"version": span.version, "start": span.start, "end": span.end, "page": pages[-1] if pages else None}
    reply = {"object": "document.text", "document_id": document_id, **place, "text": span.text}
    return json_response(reply, headers=headers)


@router.get("/v1/documents/{document_id}/original")
async def get_original(document_id: str, request: Request, caller: Reader) -> Response:
    """The very bytes that the document was made of. As a download: a page of somebody's must not run in ours."""
    desk = face_of(request).desk
    _, document = await readable(desk.catalog, caller, document_id)
    headers = _cached_by(document.source_sha256) | {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(document.uri.rpartition('/')[2], safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    if _has(request, headers):
        return Response(status_code=304, headers=headers)
    pieces = _pieces(desk.originals, document)
    try:
        first = await anext(pieces, b"")  # what can be refused is refused while there is still a status to say it by
    except NotFoundError:
        _, now = await readable(desk.catalog, caller, document_id)
        if now.original == document.original:
            raise
        return await get_original(document_id, request, caller)  # it was replaced a moment ago
    return StreamingResponse(_joined(first, pieces), media_type=document.media_type, headers=headers)


def _cached_by(tag: str) -> dict[str, str]:
    """Headers that let a browser keep a reply, for this key and as long as it asks each time whether it still may."""
    return {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache", "Vary": "Authorization, Api-Key"}


def _has(request: Request, headers: Mapping[str, str]) -> bool:
    """Whether the caller has kept what these headers are of."""
    return headers["ETag"] in request.headers.get("If-None-Match", "")


def _pieces(originals: Originals, document: StoredDocument) -> AsyncGenerator[bytes, None]:
    if not document.original:
        raise NotFoundError(f"the original of document {document.id!r} is not kept: ingest it again to keep it")
    return originals.read(document.original)


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


@router.post("/v1/citations/verify")
async def verify_citation(body: VerifyBody, request: Request, caller: Reader) -> Response:
    """Whether a citation's words still stand where it says: verified, mismatch, gone or not_found."""
    claim = Claim(**body.model_dump())
    verdict = await verify(face_of(request).desk.catalog, caller, claim)
    return json_response({"object": "citation.verification", "status": verdict.status, "detail": verdict.detail})
