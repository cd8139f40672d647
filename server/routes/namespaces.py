"""Namespaces: they are made by what is ingested into them, and dropped here. What of it could not be read is listed."""

from dataclasses import asdict
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from server.access import resolve, resolve_one
from server.base import ForbiddenError
from server.routes import NamespaceAdmin, face_of, json_response, new_router, page_response

router = new_router()


@router.get("/v1/failures")
async def list_failures(
    request: Request,
    caller: NamespaceAdmin,
    collection: str | None = None,
    namespace: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """A page of what could not be read of a namespace's sources, by uri; `next` is the `after` of the next page.

    Nobody knows whose they are, so it is for those who read every document. Raises ForbiddenError for others.
    """
    desk = face_of(request).desk
    if caller.groups is not None:
        raise ForbiddenError("what could not be read has no groups: list it with a key of all groups")
    collection = collection or desk.settings.collection
    namespace = resolve_one(caller, collection, namespace)
    state = await desk.catalog.namespace(collection, namespace)
    page, following = await desk.catalog.failures(state.id, after, limit)
    return page_response([{"object": "failure", **asdict(failure)} for failure in page], following)


@router.delete("/v1/namespaces/{namespace:path}")
async def drop_namespace(
    namespace: str, request: Request, caller: NamespaceAdmin, collection: str | None = None
) -> Response:
    """Delete a namespace with every document of it, for good; uploads that wait for it, or are under way, end.

    Raises ForbiddenError for a key that does not read all of them.
    """
    desk = face_of(request).desk
    if caller.groups is not None:
        raise ForbiddenError("a namespace is dropped with documents of all groups: use a key of all groups")
    collection = collection or desk.settings.collection
    (name,) = resolve(caller, collection, [namespace])
    await desk.pipeline.drop(collection, name)
    return json_response({"object": "namespace.deleted", "collection": collection, "namespace": name, "deleted": True})
