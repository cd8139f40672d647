"""Desks for tests of the faces: real, with the deterministic models, over a folder of the test's own."""

import io
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx2
import uvicorn

from indexers.sources import Upload
from server.app import create_app
from server.auth import ADMIN, Claims, Keys
from server.build import Desk, build
from server.settings import Settings

GUIDE = """# Kestrel pump guide

The Kestrel pump moves 40 litres of water a minute. Its casing is made of cast iron.

## Service

The Kestrel pump must be serviced every six months. Replace the seal when it is serviced. 🛠️ Use only 𝔊rade-5 seals.

## Storage

Store the pump dry, between 5 and 40 degrees. A drained pump may be stored for two years.
"""
QUESTION = "How often must the Kestrel pump be serviced?"
NOTES = """# Harbour notes

The harbour office opens at seven. Ships are to call on channel twelve before they enter.
"""
LOCAL_TOKEN = "token-of-this-machine"


def text_file(name: str, words: str) -> Upload:
    """A text file that somebody sent."""
    return Upload(name, io.BytesIO(words.encode()))


def fake_settings(data_dir: Path, **overrides: Any) -> Settings:
    return Settings(**{"data_dir": data_dir, "embedder": "fake", "generator": "fake", **overrides})


@asynccontextmanager
async def open_desk(data_dir: Path, **overrides: Any) -> AsyncIterator[Desk]:
    desk = await build(fake_settings(data_dir, **overrides), command="a test")
    try:
        yield desk
    finally:
        await desk.close()


async def new_key(desk: Desk, claims: Claims = ADMIN) -> str:
    return (await Keys(desk.catalog).add("test", claims))[1]


@asynccontextmanager
async def open_http(desk: Desk, key: str | None = LOCAL_TOKEN) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an app over the desk, in this process."""
    transport = httpx2.ASGITransport(create_app(desk, local_token=LOCAL_TOKEN), raise_app_exceptions=True)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(transport=transport, base_url="http://desk", headers=headers) as http:
        yield http


async def upload(http: httpx2.AsyncClient, files: dict[str, str | bytes], **fields: Any) -> dict[str, Any]:
    parts = [("file", (name, text.encode() if isinstance(text, str) else text)) for name, text in files.items()]
    response = await http.post("/v1/documents", files=parts, data=fields)
    assert response.status_code == 201, response.text
    receipt: dict[str, Any] = response.json()
    return receipt


async def search(http: httpx2.AsyncClient, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    response = await http.post("/v1/search", json={"question": question, **fields})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def refused(http: httpx2.AsyncClient, method: str, path: str, **kwargs: Any) -> tuple[int, dict[str, Any]]:
    """The status and the error of a request that must be refused."""
    response = await http.request(method, path, **kwargs)
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error


@contextmanager
def running_server(data_dir: Path, **overrides: Any) -> Iterator[str]:
    """A real uvicorn in a thread, over a desk with the two documents; yields its URL. The admin key: LOCAL_TOKEN."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started, server_box = threading.Event(), list[uvicorn.Server]()

    async def serve() -> None:
        async with open_desk(data_dir, **overrides) as desk:
            async with open_http(desk) as http:
                await upload(http, {"guide.md": GUIDE, "notes.md": NOTES})
            app = create_app(desk, local_token=LOCAL_TOKEN)
            config = uvicorn.Config(
                app, http="httptools", ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=2
            )
            desk.lock.update(url, LOCAL_TOKEN)
            server_box.append(uvicorn.Server(config))
            started.set()
            await server_box[0].serve(sockets=[listener])

    with anyio.from_thread.start_blocking_portal() as portal:
        done = portal.start_task_soon(serve)
        while not started.wait(0.05):
            if done.done():
                done.result()
        yield url
        server_box[0].should_exit = True
        done.result()
    listener.close()
