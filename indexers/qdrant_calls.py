"""Calls to a Qdrant server: repeated where that helps, and every failure of the client translated.

The client raises what its two transports raise, gRPC and HTTP; its local mode raises ValueError and RuntimeError.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from grpc import StatusCode
from grpc.aio import AioRpcError
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from indexers.base import IndexerError, IndexUnavailableError, NamespaceNotFoundError
from indexers.retry import Backoff, Retries, wait_of_status

T = TypeVar("T")
_SEARCHES = Backoff(attempts=2, base_s=0.05)  # the other leg answers alone sooner than a third attempt would
_HTTP_OF = {  # of those that say something to us; the others stand for a failure of the server
    StatusCode.NOT_FOUND: 404,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 400,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.DEADLINE_EXCEEDED: 408,
    StatusCode.UNAVAILABLE: 503,
}


class CollectionMissingError(NamespaceNotFoundError):
    """Qdrant knows no such collection, alias or shard key."""


class Calls:
    """The calls of one index: they share two retry budgets, one for searches, and end when it is closed."""

    def __init__(self, retries: Retries) -> None:
        self._retries, self._searching = retries, Retries(_SEARCHES)
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True

    def check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    async def run(self, request: Callable[[], Awaitable[T]], *, is_search: bool = False) -> T:
        """The result of an idempotent request. Raises CollectionMissingError and IndexUnavailableError."""
        self.check_open()
        with map_errors():
            return await (self._searching if is_search else self._retries).run(request, wait_s)


def wait_s(exc: Exception) -> float | None:
    """Seconds to wait before the request that failed so is repeated; None where repeating is useless."""
    match exc:
        case ResourceExhaustedResponse():
            return float(exc.retry_after_s)
        case ResponseHandlingException():  # no connection, or what came is no answer of Qdrant's
            return None if isinstance(exc.source, ValidationError) else 0.0
        case UnexpectedResponse():
            return wait_of_status(_status(exc), exc.headers.get("retry-after"))
        case AioRpcError():
            return wait_of_status(_status(exc), None)
    return None


@contextmanager
def map_errors() -> Iterator[None]:
    """Translate whatever the client raises."""
    try:
        yield
    except IndexerError:
        raise
    except Exception as exc:
        raise _translated(exc) from exc


def _translated(exc: Exception) -> IndexerError:
    status, said = _status(exc), _said(exc)
    if status == 404 or ("not found" in said and (isinstance(exc, ValueError) or "Shard key" in said)):
        return CollectionMissingError(f"Qdrant finds nothing ({said}); create the namespace first")
    if status in (401, 403):
        return IndexUnavailableError(f"Qdrant refuses the key ({said}); check qdrant_api_key_file")
    if status == 503:
        return IndexUnavailableError(f"Qdrant cannot be reached ({said}); check qdrant_url, and that the server runs")
    if status == 400:
        return IndexUnavailableError(f"Qdrant refuses the request ({said}); see that its settings allow qdrant_…'s")
    return IndexUnavailableError(f"Qdrant failed ({said}); retry, and look into the server's log")


def _status(exc: Exception) -> int:
    """The failure as an HTTP status: 503 where there was no answer, 500 for what has no better one."""
    match exc:
        case UnexpectedResponse():
            return exc.status_code or 500
        case ResponseHandlingException():
            return 503
        case AioRpcError():
            return _HTTP_OF.get(exc.code(), 500)
    return 500


def _said(exc: Exception) -> str:
    match exc:
        case AioRpcError():
            text = f"{exc.code().name}: {exc.details()}"
        case ResponseHandlingException():
            text = f"{type(exc.source).__name__}: {exc.source}"
        case _:
            text = str(exc)
    return " ".join(text.split())[:300]
