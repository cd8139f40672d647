"""Namespaces: they are made by what is ingested into them, and dropped here."""

from starlette.requests import Request
from starlette.responses import Response

from server.access import resolve
from server.routes import NamespaceAdmin, face_of, json_response, new_router

router = new_router()


@router.delete("/v1/collections/{collection:path}/namespaces/{namespace:path}")
async def drop_namespace(collection: str, namespace: str, request: Request, caller: NamespaceAdmin) -> Response:
    """Delete a namespace with every document of it, for good; uploads that wait for it, or are under way, end."""
    (name,) = resolve(caller, collection, [namespace])
    await face_of(request).desk.pipeline.drop(collection, name)
    return json_response({"object": "namespace.deleted", "collection": collection, "namespace": name, "deleted": True})
