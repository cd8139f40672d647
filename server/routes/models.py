"""GET /v1/models: a model a collection."""

from starlette.requests import Request
from starlette.responses import Response

from server.access import default_namespace, existing_model, may_reach, own_namespaces
from server.routes import Reader, face_of, json_response, new_router

router = new_router()


@router.get("/v1/models")
async def list_models(request: Request, caller: Reader) -> Response:
    """A model a collection whose name alone means a namespace, and one a namespace that the key names, or that it
    reaches and the name alone does not mean. What is listed is there."""
    desk = face_of(request).desk
    ids: list[str] = []
    for collection in await desk.catalog.collections():
        name = collection.spec.name
        there = [state.namespace.name for state in await desk.catalog.namespaces(name)]
        reached = [namespace for namespace in there if may_reach(caller, name, namespace)]
        meant = default_namespace(caller, name)
        if meant in reached:
            ids.append(name)
        own = own_namespaces(caller, name)
        ids += [f"{name}:{namespace}" for namespace in reached if namespace in own or meant not in reached]
    return json_response({"object": "list", "data": [_model(id_) for id_ in ids]})


@router.get("/v1/models/{model:path}")
async def get_model(model: str, request: Request, caller: Reader) -> Response:
    """One model, if the key may use it."""
    desk = face_of(request).desk
    if model != desk.pipeline.models.embedder.info.name:
        collections = {collection.spec.name for collection in await desk.catalog.collections()}
        await existing_model(desk.catalog, caller, model, collections)
    return json_response(_model(model))


def _model(id_: str) -> dict[str, object]:
    return {"id": id_, "object": "model", "created": 0, "owned_by": "refdesk"}
