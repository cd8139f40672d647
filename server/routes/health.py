"""Health, readiness and metrics: open to all, so they name no collection, no document and no key."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

import server
from server.routes import face_of, json_response, new_router
from server.routes.inference import inference_of

process = new_router()  # a model node answers these too
router = new_router()


@process.get("/health")
async def health() -> Response:
    """The process answers."""
    return json_response({"status": "ok", "version": server.__version__})


@router.get("/ready")
async def ready(request: Request) -> Response:
    """The catalog answers and the models are loaded: requests may be sent here."""
    desk = face_of(request).desk
    await desk.catalog.collections()
    models = desk.pipeline.models
    reranker = models.reranking.reranker.info.name if models.reranking else None
    names = {"embedder": models.embedder.info.name, "reranker": reranker, "generator": models.generator.info.name}
    return json_response({"status": "ready", "models": names, "precision": models.embedder.info.precision})


@process.get("/metrics")
async def metrics(request: Request) -> Response:
    """What Prometheus scrapes."""
    return Response(inference_of(request).metrics.expose(), media_type=CONTENT_TYPE_LATEST)
