"""A real S3 server, the Versity gateway over a folder, built by Go from its module, once. It checks signatures."""

import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from server.s3 import S3, Access, Encryption, Keys, Place
from tests.live.servers import CACHE, Server, free_port, need

VERSION = "1.8.0"
KEYS = Keys("refdesk-tests", "only for tests")
_KEPT = CACHE / f"versitygw-{VERSION}"
_numbers = count(1)


@dataclass(frozen=True)
class S3Server:
    """A running server; its buckets are the folders of `root`."""

    port: int
    server: Server
    root: Path

    def url(self, port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.port}"

    def access(self, keys: Keys | None = KEYS, *, port: int | None = None, timeout_s: float = 10.0) -> Access:
        return Access(self.url(port), keys=keys, timeout_s=timeout_s)

    async def new_bucket(self) -> str:
        name = f"test-{next(_numbers)}"
        async with opened(self.access()) as s3:
            await s3._client.create_bucket(Bucket=name)
        return name

    async def put(self, bucket: str, objects: dict[str, bytes]) -> None:
        async with opened(self.access()) as s3:
            for key, data in objects.items():
                await s3.put(Place(bucket, key), data, Encryption())

    async def remove(self, bucket: str, *keys: str) -> None:
        async with opened(self.access()) as s3:
            await s3.delete([Place(bucket, key) for key in keys])


@asynccontextmanager
async def opened(access: Access) -> AsyncIterator[S3]:
    s3 = await S3.connect(access)
    try:
        yield s3
    finally:
        await s3.close()


@contextmanager
def s3_server(folder: Path, *options: str, root: Path | None = None) -> Iterator[S3Server]:
    """A server with its buckets under `root` (its own folder), and its log under `folder`."""
    port = free_port()
    root = root or folder / "buckets"
    root.mkdir(exist_ok=True)
    listening = ["--port", f"127.0.0.1:{port}", "--health", "/health", "--keep-alive", "--quiet", *options]
    command = [str(program()), *listening, "posix", str(root)]
    keys = {"ROOT_ACCESS_KEY": KEYS.id, "ROOT_SECRET_KEY": KEYS.secret}
    scheme = "https" if "--cert" in options else "http"
    with Server("s3", command, folder, lambda: _is_ready(f"{scheme}://127.0.0.1:{port}"), keys) as server:
        yield S3Server(port, server, root)


def _is_ready(url: str) -> bool:
    any_certificate = ssl._create_unverified_context()
    with urlopen(f"{url}/health", timeout=5, context=any_certificate) as answer:
        return bool(answer.status == 200)


def program() -> Path:
    """The server's program, built if it is not there; skips where there is no Go."""
    built = _KEPT / "versitygw"
    if not built.exists():
        environment = {**os.environ, "GOBIN": str(_KEPT), "GOFLAGS": "-trimpath -modcacherw", "CGO_ENABLED": "0"}
        module = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
        subprocess.run([need("go"), "install", module], env=environment, check=True)
    return built


def settings_for(server: S3Server, folder: Path, port: int | None = None, **others: Any) -> dict[str, Any]:
    """The settings by which a desk reaches it; the key files are put into `folder`."""
    files = {"s3_access_key_file": KEYS.id, "s3_secret_key_file": KEYS.secret}
    for name, secret in files.items():
        (folder / name).write_text(f"{secret}\n")
    return {"s3_endpoint": server.url(port), **{name: folder / name for name in files}, **others}
