"""Routes: each reads the request, asks the pipeline or the catalog, and shapes the reply. No route handles an error."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import orjson
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from server.auth import Keys, require
from server.base import Principal
from server.build import Desk
from server.errors import failure_of, openai_body
from server.metrics import Metrics
from server.stream import event_line

Reader = Annotated[Principal, Depends(require("read"))]
Writer = Annotated[Principal, Depends(require("write"))]
Admin = Annotated[Principal, Depends(require("admin"))]
NamespaceAdmin = Annotated[Principal, Depends(require("admin", of_some=True))]


@dataclass(frozen=True, slots=True)
class Face:
    """What the routes of one app work with."""

    desk: Desk
    keys: Keys
    metrics: Metrics


class JsonRequest(Request):
    """A request whose JSON is read by orjson, which refuses lone surrogates: they could not be stored or sent on."""

    async def json(self) -> object:
        return orjson.loads(await self.body())


class JsonRoute(APIRoute):
    """A route whose requests are JsonRequests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return handle_json


def new_router() -> APIRouter:
    return APIRouter(route_class=JsonRoute)


def face_of(request: Request) -> Face:
    return cast(Face, request.app.state.face)


def json_response(body: bytes | object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON reply; bytes are JSON already."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(content, status, headers, "application/json")


def page_response(data: Sequence[object], following: str | None) -> Response:
    """A page of a list; `following` is the `after` of the next one, None at the end."""
    return json_response({"object": "list", "data": data, "has_more": following is not None, "next": following})


def error_line(face: Face) -> Callable[[Exception], bytes]:
    """How an error is told within a stream, in the shape that a whole reply would have."""

    def line(error: Exception) -> bytes:
        face.metrics.count_error(error)
        return event_line(orjson.dumps(openai_body(failure_of(error))))

    return line
