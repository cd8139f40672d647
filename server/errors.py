"""The one table from error classes to HTTP: class → (status, code), in one JSON shape a dialect.

Errors know no HTTP and routes hold no `try`: whatever a route raises is answered here. What the table does not know is
a fault of ours: the client gets an id, the log gets the same id with the place, and neither gets any text.
"""

import logging
import math
import secrets
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexers import base as indexers
from models import base as models
from server import base as server

log = logging.getLogger("refdesk.http")


@dataclass(frozen=True, slots=True)
class Rule:
    """What an error class becomes. `code` is stable: clients may branch on it."""

    status: int
    code: str


@dataclass(frozen=True, slots=True)
class Failure:
    """One error, ready to be put into a dialect's shape."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


INTERNAL = Rule(500, "internal_error")
CATALOG_DOWN = Rule(503, "catalog_unavailable")
OURS = frozenset({INTERNAL, CATALOG_DOWN})  # faults inside, whose message is for the log's reader, not the client
CLIENT_LEFT = Rule(499, "client_left")

TABLE: Mapping[type[Exception], Rule] = MappingProxyType(
    {
        server.ServerError: INTERNAL,
        server.InvalidRequestError: Rule(400, "invalid_request"),
        server.NotFoundError: Rule(404, "not_found"),
        server.UnknownModelError: Rule(404, "model_not_found"),
        server.GoneError: Rule(410, "gone"),
        server.ConflictError: Rule(409, "conflict"),
        server.UnauthorizedError: Rule(401, "invalid_api_key"),
        server.ForbiddenError: Rule(403, "forbidden"),
        server.ContextTooLongError: Rule(400, "context_length_exceeded"),
        server.DataFolderHeldError: Rule(503, "data_folder_held"),
        server.OverloadedError: Rule(429, "rate_limit_exceeded"),
        server.CatalogUnavailableError: CATALOG_DOWN,
        server.StoreUnavailableError: Rule(503, "store_unavailable"),
        models.ModelError: INTERNAL,
        models.ModelNotFoundError: Rule(404, "model_not_found"),
        models.ModelCorruptError: Rule(503, "model_corrupt"),
        models.UnsupportedModelError: Rule(400, "model_unsupported"),
        models.InputTooLongError: Rule(400, "context_length_exceeded"),
        models.ModelUnavailableError: Rule(503, "model_unavailable"),
        models.GenerationTimeoutError: Rule(504, "generation_timeout"),
        indexers.IndexerError: INTERNAL,
        indexers.UnreadableError: Rule(422, "unreadable"),
        indexers.FilterError: Rule(400, "invalid_filter"),
        indexers.InvalidPointError: Rule(400, "invalid_point"),
        indexers.NamespaceNotFoundError: Rule(404, "not_found"),
        indexers.DimensionMismatchError: Rule(400, "dimension_mismatch"),
        indexers.IndexUnavailableError: Rule(503, "index_unavailable"),
        ClientDisconnect: CLIENT_LEFT,
    }
)
# starlette's own refusals, and FastAPI's
HTTP_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def rule_of(error: Exception) -> Rule:
    """The rule of the error's class, or of the nearest class above it that has one."""
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), INTERNAL)


def failure_of(error: Exception) -> Failure:
    """An error as what the client is told. An unknown one is logged under the id that its message names."""
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return Failure(error.status_code, HTTP_CODES.get(error.status_code, "http_error"), str(error.detail))
    rule = rule_of(error)
    if rule in OURS:
        return Failure(rule.status, rule.code, f"internal error {_record(error)}: the server's log has it by this id")
    param = error.param if isinstance(error, server.InvalidRequestError) else None
    retry = error.retry_after_s if isinstance(error, server.OverloadedError) else None
    return Failure(rule.status, rule.code, str(error), "filter" if rule.code == "invalid_filter" else param, retry)


def openai_body(failure: Failure) -> dict[str, object]:
    """OpenAI's shape; all four members are always there."""
    kind = KINDS.get(failure.status, "invalid_request_error" if failure.status < 500 else "server_error")
    return {
        "error": {"message": failure.message, "type": kind, "param": failure.param, "code": failure.code},
    }


Dialect = Callable[[Failure], dict[str, object]]


def respond(error: Exception, dialect: Dialect = openai_body) -> Response:
    """The response to an error, in a dialect's shape."""
    failure = failure_of(error)
    headers = {}
    if failure.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(failure.retry_after_s)))
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, HTTPException) and error.headers:
        headers |= error.headers
    return Response(orjson.dumps(dialect(failure)), failure.status, headers, "application/json")


def _invalid(error: RequestValidationError) -> Failure:
    """FastAPI's list of complaints as one sentence about the first field."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        place = f"{first['ctx']['error']} at character {first['loc'][1]}"
        return Failure(400, "invalid_json", f"the body is not valid JSON: {place}")
    path = list(map(str, takewhile(_is_field, first["loc"][1:])))
    if not path:
        return Failure(400, "invalid_request", "the body must be a JSON object, sent as Content-Type: application/json")
    param = ".".join(path)
    given = first.get("input")
    shown = f", not {given!r:.80}" if isinstance(given, str | int | float | bool) else ""
    return Failure(400, "invalid_request", f"{param}: {first['msg']}{shown}", param)


def _is_field(part: object) -> bool:
    """Whether a part of pydantic's location is a field or an index, and not the name of a union's branch."""
    return isinstance(part, int) or (str(part).isidentifier() and part not in {"str", "int", "float", "bool"})


def _record(error: Exception) -> str:
    """Log where an unexpected error came from, without its message, which may hold text; returns its id."""
    id_ = f"err_{secrets.token_hex(6)}"
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    log.error("internal error", extra={"error_id": id_, "error_class": type(error).__qualname__, "places": places})
    return id_


def openapi_responses() -> dict[int | str, dict[str, object]]:
    """What OpenAPI says of errors, out of the same table: each status with its codes."""
    rules = {*TABLE.values(), *(Rule(status, code) for status, code in HTTP_CODES.items())} - {CLIENT_LEFT}
    by_status: dict[int | str, dict[str, object]] = {}
    for status in sorted({rule.status for rule in rules}):
        codes = sorted(rule.code for rule in rules if rule.status == status)
        by_status[status] = {"description": ", ".join(codes)}
    return by_status


class Guard:
    """ASGI: answers every error that reaches it; OnError hears of each. One after the response began ends it."""

    def __init__(self, app: ASGIApp, on_error: Callable[[Exception], None]) -> None:
        self.app, self.on_error = app, on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as exc:
            self.on_error(exc)
            if started:
                _record(exc)
                raise ConnectionError("the response broke off; the log has the place") from None
            await respond(exc)(scope, receive, send)


def install(app: FastAPI, on_error: Callable[[Exception], None]) -> None:
    """Answer FastAPI's own refusals (unknown path, wrong method, invalid body) in the same shape."""

    async def answer(request: Request, exc: Exception) -> Response:
        on_error(exc)
        return respond(exc)

    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(RequestValidationError, answer)
