"""The HTTP face of a desk, or of a model node: routes, and around them pure ASGI layers.

From the outside in they observe, answer errors, keep the door, find the caller and limit the body.
"""

from functools import partial

from fastapi import FastAPI

import server
from server import errors
from server.auth import Authenticate, Callers, Keys
from server.build import Desk
from server.inference import Inference
from server.limits import BodyLimit, Door
from server.metrics import Metrics, Observe
from server.node import Node, NodeKey
from server.rates import LocalRates
from server.routes import Face, admin, chat, documents, health, inference, jobs, keys, namespaces, search
from server.routes import models as model_list
from server.routes import node as node_routes
from server.settings import Settings


def create_app(desk: Desk, *, local_token: str | None = None) -> FastAPI:
    """An app over an open desk; closing the desk is the caller's.

    `local_token` lets in commands on this machine (auth.py). FastAPI's pages load from a CDN, so they are off.
    """
    metrics, models = Metrics(desk.redis, desk.jobs), desk.pipeline.models
    desk.jobs.on_receipt = partial(documents.count_receipt, metrics)
    face = Face(desk, Keys(desk.catalog), metrics)
    app = _new_app()
    app.state.face = face
    reranker = models.reranking.reranker if models.reranking else None
    app.state.inference = Inference(models.embedder, reranker, metrics, desk.catalog)
    for routes in (search, chat, inference, model_list, documents, namespaces, jobs, keys, admin, health):
        app.include_router(routes.router)
    app.include_router(health.process)
    return _layered(app, desk.settings, metrics, Callers(face.keys, desk.rates), local_token=local_token)


def create_node_app(node: Node, key: NodeKey) -> FastAPI:
    """The app of a model node."""
    metrics = Metrics()
    app = _new_app()
    app.state.inference = Inference(node.embedder, node.reranker, metrics)
    for router in (inference.router, node_routes.router, health.process):
        app.include_router(router)
    return _layered(app, node.settings, metrics, Callers(key, LocalRates()), local_token=None)


def _new_app() -> FastAPI:
    return FastAPI(
        title="refdesk",
        version=server.__version__,
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
        responses=errors.openapi_responses(),
    )


def _layered(
    app: FastAPI, settings: Settings, metrics: Metrics, callers: Callers, *, local_token: str | None
) -> FastAPI:
    errors.install(app, metrics.count_error)
    app.add_middleware(BodyLimit, max_upload_bytes=settings.max_upload_bytes)
    app.add_middleware(Authenticate, callers=callers, settings=settings, local_token=local_token)
    app.add_middleware(Door, max_concurrent=settings.max_concurrent)
    app.add_middleware(errors.Guard, on_error=metrics.count_error)
    app.add_middleware(Observe, metrics=metrics)
    return app
