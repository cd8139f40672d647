"""POST /v1/embeddings and POST /v1/rerank: the models themselves, in a desk and in a model node."""

from typing import cast

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from models.base import Embedder, Passage
from server.access import existing_model
from server.base import InvalidRequestError, Principal, UnknownModelError
from server.inference import Inference, relevance, tokenised
from server.metrics import trace_of
from server.routes import Reader, json_response, new_router
from server.schemas.embeddings import Embedded, EmbeddingsBody, embeddings_reply
from server.schemas.rerank import RerankBody, dialect_of, rerank_reply, texts_of
from server.stream import unless_left
from server.telemetry import Trace

router = new_router()


def inference_of(request: Request) -> Inference:
    return cast(Inference, request.app.state.inference)


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsBody, request: Request, caller: Reader) -> Response:
    """Vectors of texts or token ids, by the embedding model's name or that of a collection it embedded."""
    inference, trace = inference_of(request), trace_of(request.scope)
    embedder = inference.embedder
    await _check_model(body, inference, caller)
    if body.dimensions not in (None, embedder.info.dimension):
        raise InvalidRequestError(
            f"dimensions={body.dimensions}: {embedder.info.name!r} has {embedder.info.dimension}, no others",
            "dimensions",
        )
    embedded = await unless_left(request.receive, _embed(embedder, body, trace))
    inference.metrics.tokens.labels("embedding").inc(sum(one.tokens for one in embedded))
    return json_response(embeddings_reply(body, embedded))


async def _check_model(body: EmbeddingsBody, inference: Inference, caller: Principal) -> None:
    """Raises UnknownModelError unless the model is the embedder, or a collection embedded by it."""
    info = inference.embedder.info
    if body.model == info.name:
        return
    if inference.catalog is None:
        raise UnknownModelError(f"no model {body.model!r} to embed with: this node runs {info.name!r}")
    collections = {c.spec.name: c for c in await inference.catalog.collections()}
    collection = await existing_model(inference.catalog, caller, body.model, collections)
    if collections[collection].embedder_fingerprint != info.fingerprint:
        raise UnknownModelError(
            f"model {body.model!r} was embedded by another model than {info.name!r}, which runs here"
        )


async def _embed(embedder: Embedder, body: EmbeddingsBody, trace: Trace) -> list[Embedded]:
    """What each input gives; a passage's special tokens are not counted."""
    texts = _texts(body)
    with trace.span("embed", outside=True):
        if texts and body.input_type == "query":
            questions = await embedder.embed_queries(texts)
            return [Embedded(q.vector, q.token_count, token_vectors=q.token_vectors) for q in questions]
        passages = await tokenised(embedder, texts) if texts else _ids(embedder, body)
        embedded = await embedder.embed_passages(passages)
        return [
            Embedded(e.vector, 0 if p.token_ids is None else len(p.token_ids), e.token_bits)
            for p, e in zip(passages, embedded, strict=True)
        ]


def _texts(body: EmbeddingsBody) -> list[str]:
    if isinstance(body.input, str):
        return [body.input]
    return [item for item in body.input if isinstance(item, str)]


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


@router.post("/v1/rerank")
@router.post("/rerank")
async def rerank(body: RerankBody, request: Request, caller: Reader) -> Response:
    """Documents by their relevance to a question, in the shape in which they were sent: Cohere's, TEI's, Pinecone's."""
    inference, trace = inference_of(request), trace_of(request.scope)
    dialect, texts = dialect_of(body, request.headers), texts_of(body)
    name = inference.require_reranker().info.name
    if body.model not in (None, "", name):
        raise UnknownModelError(f"no model {body.model!r} to rerank with: {name!r} runs here")
    passages = await tokenised(inference.embedder, texts)
    with trace.span("rerank", outside=True):
        work = relevance(inference, body.query, passages, raw=body.raw_scores)
        scores = await unless_left(request.receive, work)
    tokens = sum(len(p.token_ids) for p in passages if p.token_ids is not None)
    inference.metrics.tokens.labels("rerank").inc(tokens)
    return json_response(rerank_reply(body, dialect, scores, model=name, tokens=tokens))
