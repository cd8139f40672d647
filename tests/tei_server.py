"""The part of text-embeddings-inference 1.9 that refdesk calls, over the deterministic models: no /v1/models, a bound
on the texts of a request, errors of its shape."""

from collections.abc import Sequence

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from models.base import Candidate, Passage
from models.fake import FakeEmbedder, FakeReranker

MAX_INPUTS = 4


def app() -> Starlette:
    def refusal(texts: Sequence[str]) -> Response | None:
        if len(texts) <= MAX_INPUTS:
            return None
        said = f"batch size {len(texts)} > maximum allowed batch size {MAX_INPUTS}"
        return JSONResponse({"error": said, "error_type": "Validation"}, 422)

    async def info(_: Request) -> Response:
        limits = {"max_input_length": 256, "max_client_batch_size": MAX_INPUTS}
        return JSONResponse({"model_id": "/data", "model_sha": None, "version": "1.9.3", **limits})

    async def embed(request: Request) -> Response:
        texts = (await request.json())["input"]
        found = await FakeEmbedder().embed_passages([Passage(text) for text in texts])
        data = [
            {"object": "embedding", "index": i, "embedding": np.asarray(one.vector).tolist()}
            for i, one in enumerate(found)
        ]
        return refusal(texts) or JSONResponse({"object": "list", "data": data, "model": "/data"})

    async def rerank(request: Request) -> Response:
        body = await request.json()
        scores = await FakeReranker().rerank(body["query"], None, [Candidate(text) for text in body["texts"]])
        listed = [{"index": i, "score": float(score)} for i, score in enumerate(scores)]
        return refusal(body["texts"]) or JSONResponse(sorted(listed, key=lambda one: -one["score"]))

    return Starlette(
        routes=[
            Route("/info", info),
            Route("/v1/embeddings", embed, methods=["POST"]),
            Route("/rerank", rerank, methods=["POST"]),
        ]
    )
