"""The HTTP face of a desk: routes, and around them pure ASGI layers. From the outside in they observe, answer errors,
keep the door, find the caller and limit the body."""

from fastapi import FastAPI

import server
from server import errors
from server.auth import Authenticate, Keys
from server.build import Desk
from server.limits import BodyLimit, Door
from server.metrics import Metrics, Observe
from server.routes import Face, admin, chat, documents, health, keys, models, search


def create_app(desk: Desk, *, local_token: str | None = None) -> FastAPI:
    """An app over an open desk; closing the desk is the caller's.

    `local_token` lets in commands on this machine (auth.py). FastAPI's pages load from a CDN, so they are off.
    """
    settings, metrics = desk.settings, Metrics()
    face = Face(desk, Keys(desk.catalog), metrics)
    app = FastAPI(
        title="refdesk",
        version=server.__version__,
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
        responses=errors.openapi_responses(),
    )
    app.state.face = face
    for routes in (chat, models, search, documents, keys, admin, health):
        app.include_router(routes.router)
    errors.install(app, metrics.count_error)
    app.add_middleware(BodyLimit, max_upload_bytes=settings.max_upload_bytes)
    app.add_middleware(Authenticate, keys=face.keys, required=settings.keys_required, local_token=local_token)
    app.add_middleware(Door, max_concurrent=settings.max_concurrent)
    app.add_middleware(errors.Guard, on_error=metrics.count_error)
    app.add_middleware(Observe, metrics=metrics)
    return app
