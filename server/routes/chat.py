"""POST /v1/chat/completions: answers with citations, whole or as a stream, in OpenAI's shape."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from starlette.requests import Request
from starlette.responses import Response

from server.access import resolve_model
from server.base import Answer, AnswerEvent, TextDelta
from server.metrics import trace_of
from server.routes import Face, Reader, error_line, face_of, json_response, new_router
from server.schemas.chat import ChatBody, Completion, Scope, to_request
from server.stream import EventStream, Feed, event_line, unless_left

router = new_router()
OPEN_WEBUI = "open-webui"


@router.post("/v1/chat/completions")
async def chat(body: ChatBody, request: Request, caller: Reader) -> Response:
    """Answer the last message from the collection that the model id names."""
    face, trace = face_of(request), trace_of(request.scope)
    collections = {collection.spec.name for collection in await face.desk.catalog.collections()}
    collection, namespace = resolve_model(caller, body.model, collections)
    asked = to_request(body, Scope(collection, namespace, caller.groups, face.desk.settings.top_k))
    events = face.desk.pipeline.answer(asked, trace)
    include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    completion = Completion(body.model, str(request.base_url), include_usage)
    if body.stream:
        with_sources = request.headers.get("x-client") == OPEN_WEBUI
        lines = _lines(face, completion, events, with_sources=with_sources)
        feed = await Feed(lines, request.receive).opened()
        return EventStream(feed, error_line(face))
    answer = await unless_left(request.receive, _whole(events))
    face.metrics.count_answer(answer)
    return json_response(completion.whole(answer))


async def _whole(events: AsyncGenerator[AnswerEvent, None]) -> Answer:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Answer):
                return event
    raise AssertionError("an answer's events end with the answer")


async def _lines(
    face: Face, completion: Completion, events: AsyncGenerator[AnswerEvent, None], *, with_sources: bool
) -> AsyncGenerator[bytes, None]:
    """The stream: role, text, one final delta with citations. Nothing before the pipeline's first event: until then
    an error can still be answered with a status."""
    async with aclosing(events):
        event = await anext(events)
        yield _line(completion.delta({"role": "assistant", "content": ""}))
        while isinstance(event, TextDelta):
            yield _line(completion.delta({"content": event.text}))
            event = await anext(events)
    face.metrics.count_answer(event)
    for source in completion.source_events(event) if with_sources else ():
        yield _line(source)
    yield _line(completion.last(event))
    if completion.include_usage:
        yield _line(completion.usage_chunk(event))
    yield event_line(b"[DONE]")


def _line(value: dict[str, object]) -> bytes:
    return event_line(orjson.dumps(value))
