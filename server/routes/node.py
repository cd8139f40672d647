"""What only a model node answers: which models it runs, in a form that another refdesk checks before relying on it."""

from starlette.requests import Request
from starlette.responses import Response

from models.base import Embedder, Reranker
from server.base import UnknownModelError
from server.routes import Reader, json_response, new_router
from server.routes.inference import inference_of

router = new_router()


@router.get("/v1/models")
async def list_models(request: Request, caller: Reader) -> Response:
    """The embedder, and the reranker if there is one."""
    return json_response({"object": "list", "data": _models(request)})


@router.get("/v1/models/{model}")
async def get_model(model: str, request: Request, caller: Reader) -> Response:
    """One of them."""
    found = next((one for one in _models(request) if one["id"] == model), None)
    if found is None:
        raise UnknownModelError(f"no model {model!r}: GET /v1/models lists those that run here")
    return json_response(found)


@router.get("/ready")
async def ready(request: Request) -> Response:
    """The models are loaded."""
    inference = inference_of(request)
    reranker = inference.reranker.info.name if inference.reranker else None
    names = {"embedder": inference.embedder.info.name, "reranker": reranker}
    return json_response({"status": "ready", "models": names, "precision": inference.embedder.info.precision})


def _models(request: Request) -> list[dict[str, object]]:
    inference = inference_of(request)
    models = [_entry(inference.embedder.info.name, _embedder(inference.embedder))]
    if inference.reranker is not None:
        models.append(_entry(inference.reranker.info.name, _reranker(inference.reranker)))
    return models


def _entry(name: str, about: dict[str, object]) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "refdesk", "refdesk": about}


def _embedder(embedder: Embedder) -> dict[str, object]:
    info = embedder.info
    return {
        "kind": "embedder",
        "fingerprint": info.fingerprint,
        "tokenizer": embedder.tokenizer.fingerprint,
        "dimension": info.dimension,
        "max_tokens": info.max_tokens,
        "special_tokens": info.special_tokens,
        "precision": info.precision,
        "has_token_vectors": info.has_token_vectors,
    }


def _reranker(reranker: Reranker) -> dict[str, object]:
    return {"kind": "reranker", "fingerprint": reranker.info.fingerprint}
