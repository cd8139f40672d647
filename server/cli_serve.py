"""`refdesk serve`: open the desk, then listen; close the door, let what runs finish, and close the desk."""

import asyncio
import gc
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import orjson
import uvicorn
from fastapi import FastAPI
from rich.text import Text

from server.app import create_app, create_node_app
from server.auth import Keys
from server.base import InvalidRequestError
from server.build import SERVE, build, build_node
from server.cli_view import err, out
from server.node import NodeKey
from server.secret import read_secret
from server.settings import Settings
from server.sweeper import sweep_regularly

SWITCH_S = 0.001  # how long a thread that wants the interpreter waits for one that computes; Python's own 5 ms add up
SHUTDOWN_S = 10  # what is being answered when the server is told to stop may take this long
LOGGED = (
    *("error_id", "error_class", "places"),
    *("request_id", "key_id", "method", "route", "status", "timings_ms"),
)


def serve(settings: Settings) -> None:
    """Run the server until it is told to stop. Raises DataFolderHeldError, ModelError, InvalidRequestError."""
    configure_logging(settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve_node(settings) if settings.role == "models" else _serve(settings))


async def _serve(settings: Settings) -> None:
    started = time.perf_counter()
    with _listen(settings.host, settings.port) as listener:
        desk = await build(settings, command=SERVE)
        try:
            token = secrets.token_urlsafe(32)
            if settings.keys_required and (admin := await Keys(desk.catalog).first_admin()):
                out.print(Text("admin key, shown this once: ") + Text(admin, style="bold"))
            config = _config(create_app(desk, local_token=token))
            url = url_of(settings.host, listener.getsockname()[1])
            _settle()
            listener.listen()  # whoever reads the lock now may connect, and is answered in a moment
            desk.lock.update(url, token)
            err.print(f"listening on {url} after {time.perf_counter() - started:.1f} s", style="green")
            desk.jobs.start(settings.job_workers)
            sweeping = asyncio.create_task(sweep_regularly(desk.catalog, desk.writer, originals=desk.originals))
            await _Server(config).serve(sockets=[listener])
            sweeping.cancel()
        finally:
            await desk.close()


async def _serve_node(settings: Settings) -> None:
    """A model node: models alone, and nothing on disk that it would own."""
    started = time.perf_counter()
    with _listen(settings.host, settings.port) as listener:
        node = await build_node(settings)
        try:
            config = _config(create_node_app(node, NodeKey(read_secret(settings.node_key_file) or "")))
            _settle()
            url = url_of(settings.host, listener.getsockname()[1])
            err.print(f"model node on {url} after {time.perf_counter() - started:.1f} s", style="green")
            await _Server(config).serve(sockets=[listener])
        finally:
            await node.close()


def _settle() -> None:
    """Take all that lives now for permanent: a full collection goes through it, 60 to 90 ms in which nothing is
    answered, every few hundred searches."""
    gc.collect()
    gc.freeze()


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


class _Server(uvicorn.Server):
    """uvicorn's, but a signal only ends the serving: its own raises it again, which would skip closing the desk."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
        for number in signals:
            loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, taken before the models are loaded so that a busy port is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise InvalidRequestError(
            f"cannot listen on {host}:{port}: {exc.strerror}; choose --port, 0 for a free one"
        ) from exc
    return listener


def url_of(host: str, port: int) -> str:
    """Where a command on this machine reaches a server that listens on `host`."""
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{local}:{port}"


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.Loop


class JsonLog(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and of the extras only those known to hold no text."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in LOGGED if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            line["error_class"] = record.exc_info[0].__qualname__  # its message and its frames may hold text
        return orjson.dumps(line).decode()


def configure_logging(level: str) -> None:
    """JSON lines to stderr; uvicorn's own start and stop messages only when debugging."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLog())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
