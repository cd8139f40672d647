"""GET /v1/models: a model a collection; POST /v1/embeddings: the embedding model's own vectors."""

import asyncio
from collections.abc import Sequence

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from models.base import Embedder, Float32, Passage
from server.access import may_reach, may_see_collection, own_namespaces, resolve_model
from server.base import InvalidRequestError, Principal, UnknownModelError
from server.metrics import trace_of
from server.routes import Reader, face_of, json_response, new_router
from server.schemas.embeddings import EmbeddingsBody, embeddings_reply
from server.stream import unless_left
from server.telemetry import Trace

router = new_router()


@router.get("/v1/models")
async def list_models(request: Request, caller: Reader) -> Response:
    """A model a collection that the key reaches, and one a namespace that the key names."""
    desk = face_of(request).desk
    ids: list[str] = []
    for collection in await desk.catalog.collections():
        name = collection.spec.name
        own = own_namespaces(caller, name)
        if may_reach(caller, name, "default") or len(own) == 1:
            ids.append(name)
        if may_see_collection(caller, name):
            ids += [f"{name}:{namespace}" for namespace in own]
    return json_response({"object": "list", "data": [_model(id_) for id_ in ids]})


@router.get("/v1/models/{model}")
async def get_model(model: str, request: Request, caller: Reader) -> Response:
    """One model, if the key may use it."""
    desk = face_of(request).desk
    if model != desk.pipeline.models.embedder.info.name:
        resolve_model(caller, model, {collection.spec.name for collection in await desk.catalog.collections()})
    return json_response(_model(model))


def _model(id_: str) -> dict[str, object]:
    return {"id": id_, "object": "model", "created": 0, "owned_by": "refdesk"}


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsBody, request: Request, caller: Reader) -> Response:
    """Vectors of texts or token ids, by the embedding model's name or that of a collection it embedded."""
    face, trace = face_of(request), trace_of(request.scope)
    embedder = face.desk.pipeline.models.embedder
    await _check_model(body, request, caller)
    if body.dimensions not in (None, embedder.info.dimension):
        raise InvalidRequestError(
            f"dimensions={body.dimensions}: {embedder.info.name!r} has {embedder.info.dimension}, no others",
            "dimensions",
        )
    vectors, token_count = await unless_left(request.receive, _embed(embedder, body, trace))
    face.metrics.tokens.labels("embedding").inc(token_count)
    as_base64 = body.encoding_format == "base64"
    return json_response(embeddings_reply(vectors, body.model, as_base64=as_base64, token_count=token_count))


async def _check_model(body: EmbeddingsBody, request: Request, caller: Principal) -> None:
    """Raises UnknownModelError unless the model is the embedder, or a collection embedded by it."""
    desk = face_of(request).desk
    info = desk.pipeline.models.embedder.info
    if body.model == info.name:
        return
    collections = {c.spec.name: c for c in await desk.catalog.collections()}
    collection, _ = resolve_model(caller, body.model, collections)
    if collections[collection].embedder_fingerprint != info.fingerprint:
        raise UnknownModelError(
            f"model {body.model!r} was embedded by another model than {info.name!r}, which runs here"
        )


async def _embed(embedder: Embedder, body: EmbeddingsBody, trace: Trace) -> tuple[Sequence[Float32], int]:
    """The vectors and how many tokens went in, special ones not counted."""
    texts = _texts(body)
    with trace.span("embed", outside=True):
        if texts and body.input_type == "query":
            embedded = await embedder.embed_queries(texts)
            return [e.vector for e in embedded], sum(e.token_count for e in embedded)
        passages = await asyncio.to_thread(_tokenised, embedder, texts) if texts else _ids(embedder, body)
        count = sum(len(p.token_ids) for p in passages if p.token_ids is not None)
        return [e.vector for e in await embedder.embed_passages(passages)], count


def _texts(body: EmbeddingsBody) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    return [item for item in body.input if isinstance(item, str)]


def _tokenised(embedder: Embedder, texts: Sequence[str]) -> list[Passage]:
    tokens = embedder.tokenizer.encode_batch(texts)
    return [Passage(text, one.ids) for text, one in zip(texts, tokens, strict=True)]


def _ids(embedder: Embedder, body: EmbeddingsBody) -> list[Passage]:
    """Passages of token ids, which are the embedding model's own (OpenAI's `tiktoken` ids mean nothing to it)."""
    lists = [item for item in body.input if isinstance(item, list)]
    flat = [item for item in body.input if isinstance(item, int)]
    size = embedder.tokenizer.vocabulary_size
    if (highest := max(max(ids) for ids in (lists or [flat]))) >= size:
        raise InvalidRequestError(
            f"token id {highest} is none of the {size:,} of {embedder.info.name!r}: cut the text with its tokenizer, "
            "or send the text itself",
            "input",
        )
    return [Passage("", np.array(ids, np.int32)) for ids in (lists or [flat])]
