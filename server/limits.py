"""The door: how many requests are worked on at once, and how many bytes one may bring.

Both refuse at once rather than make anybody wait: 429 when full, 413 as soon as the bytes exceed the limit, while they
are being read.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.base import OverloadedError

OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})  # answered whatever the load, and without a key
MAX_JSON_BYTES = 32 * 2**20  # 2,048 inputs of 4,000 tokens to embed, the largest JSON request there is
MULTIPART_BYTES = 64 * 2**10  # boundaries and form fields around the files of an upload


class Door:
    """ASGI: at most `max_concurrent` requests inside, a stream counting until its end; more raise OverloadedError."""

    def __init__(self, app: ASGIApp, max_concurrent: int) -> None:
        self.app, self.max_concurrent = app, max_concurrent
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        if self.inside >= self.max_concurrent:
            raise OverloadedError(
                f"{self.inside} requests are being worked on, the most allowed: try again in a moment"
            )
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


class BodyLimit:
    """ASGI: a body longer than its kind may be is refused with 413 as soon as that shows."""

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        self.app, self.max_upload_bytes = app, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        upload = headers.get("content-type", "").startswith("multipart/")
        limit = self.max_upload_bytes + MULTIPART_BYTES if upload else MAX_JSON_BYTES
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise too_large(limit)
            return message

        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_large(limit)
        await self.app(scope, limited, send)


def too_large(limit: int) -> HTTPException:
    """The refusal of a body; an HTTPException because that is what FastAPI lets through while it reads one."""
    return HTTPException(413, f"the request's body is larger than {limit:,} bytes: send less at once")
