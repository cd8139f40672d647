"""POST /v1/search: the native search."""

from starlette.requests import Request
from starlette.responses import Response

from indexers.filter import parse_filter
from server.access import resolve
from server.base import InvalidRequestError, Principal, SearchRequest
from server.metrics import trace_of
from server.routes import Reader, face_of, json_response, new_router
from server.schemas.search import SearchBody, search_reply
from server.settings import Settings
from server.stream import unless_left

router = new_router()


@router.post("/v1/search")
async def search(body: SearchBody, request: Request, caller: Reader) -> Response:
    """The chunks that answer a question best."""
    face, trace = face_of(request), trace_of(request.scope)
    asked = to_request(body, caller, face.desk.settings)
    result = await unless_left(request.receive, face.desk.pipeline.search(asked, trace))
    face.metrics.count_search(result)
    return json_response(search_reply(result, trace.timings_ms()))


def to_request(body: SearchBody, caller: Principal, settings: Settings) -> SearchRequest:
    """The pipeline's request. Raises InvalidRequestError, NotFoundError, FilterError."""
    if body.namespace is not None and body.namespaces is not None:
        raise InvalidRequestError("give namespace or namespaces, not both", "namespaces")
    collection = body.collection or settings.collection
    named = body.namespaces or ([body.namespace] if body.namespace else None)
    return SearchRequest(
        question=body.question,
        collection=collection,
        namespaces=resolve(caller, collection, named),
        top_k=body.top_k or settings.top_k,
        filter=parse_filter(body.filter),
        rerank=body.rerank,
        as_of=body.as_of,
        groups=caller.groups,
    )
