"""HTTP to the servers that run models: replicas, retries and deadlines in one place; errors become models.base's.

`async for attempt in remote.attempts(...)`: `async with attempt, attempt.open(...)` does the work. A failure that may
be retried begins the loop anew, any other leaves it as a ModelError; after `attempt.commit()` nothing is retried.
"""

import asyncio
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeVar, cast

import httpx2
import orjson

from models.base import InputTooLongError, ModelError, ModelNotFoundError, ModelUnavailableError, UnsupportedModelError
from models.replicas import Replica, Replicas
from models.retry import Backoff, RetryBudget, is_retryable, parse_retry_after

CONNECT_S = 2.0  # a host that does not even accept in this time is down
_KEEP_ALIVE_S = 4.0  # below uvicorn's 5 s, so that a connection is not taken up in the moment its server closes it
_ERROR_BYTES = 65_536
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|max_model_len|maximum input|too many tokens|is too long"
    r"|must have less than \d+ tokens",  # the last is TEI's
    re.I,
)

Json = Mapping[str, object]
T = TypeVar("T")


class StatusError(Exception):
    """A reply that is no success; `message` is the server's own."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message, self.retry_after_s = status, message, retry_after_s


class MalformedReplyError(Exception):
    """A reply that is not what the API promises."""


FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ssl.SSLError, StatusError, MalformedReplyError)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a server: `path` from its root on, `body` to be sent as JSON."""

    method: Literal["GET", "POST"]
    path: str
    body: object = None


class Remote:
    """A model behind HTTP. `what` names it in messages: "generator 'qwen3'"; `hint` says which settings lead to it."""

    def __init__(self, what: str, urls: Sequence[str], *, hint: str, api_key: str | None = None) -> None:
        self.what, self.hint = what, hint
        self.replicas = Replicas([root_of(url) for url in urls])
        self.backoff, self.budget = Backoff(), RetryBudget()
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {api_key}"} if api_key else {}
        )
        self._http: httpx2.AsyncClient | None = None
        self._closed = False

    def attempts(self, deadline: float | None = None, *, patient: bool = False) -> "Attempts":
        """The attempts of one request; `deadline` in the event loop's time, beyond which none is begun.

        `patient`: with all replicas ejected wait for one, as bulk work may, instead of giving up at once.
        """
        return Attempts(self, deadline, patient)

    async def json(
        self, request: Request, read: Callable[[object], T], *, timeout_s: float | None = None, patient: bool = False
    ) -> T:
        """One request, and what `read` makes of its JSON; MalformedReplyError from there counts as a broken reply.

        Raises a ModelError; ModelUnavailableError after `timeout_s`.
        """
        deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                async for attempt in self.attempts(deadline, patient=patient):
                    async with attempt, attempt.open(request) as response:
                        return read(parse(await response.aread()))
        except TimeoutError as exc:
            raise ModelUnavailableError(f"{self.what} did not answer in time: {self.hint}") from exc
        raise AssertionError("attempts end with a result or an error")

    async def close(self) -> None:
        """Close the connections; later calls raise ModelUnavailableError."""
        self._closed = True
        if self._http is not None:
            await self._http.aclose()

    @property
    def http(self) -> httpx2.AsyncClient:
        """The client, made when first needed. No proxy of the environment: only the settings' hosts are called."""
        if self._closed:
            raise ModelUnavailableError(f"{self.what} was closed")
        if self._http is None:
            self._http = httpx2.AsyncClient(
                headers=self._headers,
                timeout=httpx2.Timeout(None, connect=CONNECT_S),
                limits=httpx2.Limits(max_keepalive_connections=100, keepalive_expiry=_KEEP_ALIVE_S),
                trust_env=False,
            )
        return self._http

    def model_error(self, failure: Exception) -> ModelError:
        """What a failure means to the caller."""
        if isinstance(failure, ModelError):
            return failure
        if not isinstance(failure, StatusError):
            reason = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
            return ModelUnavailableError(f"{self.what} does not answer ({reason}): {self.hint}")
        if failure.status in {401, 403}:
            return ModelUnavailableError(f"{self.what} refused the key ({failure}): {self.hint}")
        if failure.status == 404:
            return ModelNotFoundError(f"{self.what} is not there ({failure}): {self.hint}")
        if failure.status in {400, 413, 422} and _TOO_LONG.search(failure.message):
            return InputTooLongError(f"{self.what} takes no more: {failure.message}")
        if is_retryable(failure.status):
            return ModelUnavailableError(f"{self.what} failed ({failure}): {self.hint}")
        return UnsupportedModelError(f"{self.what} refused the request ({failure})")


class Attempts:
    """The attempts of one request, made one after the other."""

    def __init__(self, remote: Remote, deadline: float | None, patient: bool) -> None:
        self.remote, self.deadline, self._patient = remote, deadline, patient
        self._tried: list[Replica] = []
        self._waits = 0
        self._delay_s = 0.0
        self._last: Exception | None = None
        self.is_done = False
        remote.budget.request()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "Attempt":
        if self.is_done:
            raise StopAsyncIteration
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        self.remote.http  # noqa: B018 - raises if closed meanwhile
        replica = self.remote.replicas.pick(self._tried)
        while replica is None and self._patient and self._waits < self.remote.backoff.attempts:
            self._waits += 1
            await asyncio.sleep(self.remote.replicas.retry_in_s() + random.random() * self.remote.backoff.base_s)
            replica = self.remote.replicas.pick(self._tried)
        if replica is None:
            why = f": {self.remote.model_error(self._last)}" if self._last else ""
            seconds = self.remote.replicas.retry_in_s()
            raise ModelUnavailableError(
                f"{self.remote.what} failed too often and is left alone for {seconds:.1f} s{why}"
            ) from self._last
        self._tried.append(replica)
        return Attempt(self, replica)

    def may_retry(self, failure: Exception) -> bool:
        """Whether another attempt follows; its delay is then set."""
        if isinstance(failure, StatusError) and not is_retryable(failure.status):
            return False
        if isinstance(failure, httpx2.UnsupportedProtocol | httpx2.InvalidURL | httpx2.LocalProtocolError):
            return False
        retry_after = failure.retry_after_s if isinstance(failure, StatusError) else None
        delay_s = self.remote.backoff.delay_s(len(self._tried), random.random(), retry_after)
        if self.deadline is not None and asyncio.get_running_loop().time() + delay_s >= self.deadline:
            return False
        if len(self._tried) >= self.remote.backoff.attempts or not self.remote.budget.take():
            return False
        self._delay_s, self._last = delay_s, failure
        return True


class Attempt:
    """One try on one replica."""

    def __init__(self, attempts: Attempts, replica: Replica) -> None:
        self._attempts, self.replica = attempts, replica
        self._is_committed = False

    def commit(self) -> None:
        """Something has reached the caller: from here on a failure is final."""
        self._is_committed = True

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[httpx2.Response]:
        """The response, its body still to be read, once the server has answered with success."""
        content = None if request.body is None else orjson.dumps(request.body, option=orjson.OPT_SERIALIZE_NUMPY)
        http = self._attempts.remote.http
        async with http.stream(request.method, self.replica.url + request.path, content=content) as response:
            if response.status_code >= 300:
                raise await _status_error(response)
            yield response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        call = self._attempts
        call.remote.replicas.release(self.replica, failed=self._failed(exc))
        if exc is None:
            call.is_done = True
            return False
        if not isinstance(exc, FAILURES):
            return False
        if not self._is_committed and call.may_retry(exc):
            return True
        raise call.remote.model_error(exc) from exc

    def _failed(self, exc: BaseException | None) -> bool | None:
        """What the end of this attempt says of the replica; a refusal of the request says that the replica is well."""
        if exc is None:
            return False
        if isinstance(exc, StatusError):
            return None if exc.status == 429 else exc.status >= 500
        if isinstance(exc, FAILURES):
            return True
        deadline = self._attempts.deadline
        is_late = deadline is not None and asyncio.get_running_loop().time() >= deadline
        return True if isinstance(exc, asyncio.CancelledError) and is_late and not self._is_committed else None


async def together(asked: Sequence[Coroutine[object, object, T]]) -> list[T]:
    """All results in order; the first failure, or a cancellation, ends the others too."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _status_error(response: httpx2.Response) -> StatusError:
    content = b""
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _ERROR_BYTES:
            break
    retry_after = parse_retry_after(response.headers.get("retry-after"))
    return StatusError(response.status_code, error_message(content) or response.reason_phrase, retry_after)


def error_message(content: bytes) -> str:
    """The message of an error body: OpenAI's and Pinecone's {"error": {"message"}}, TEI's {"error"}, or the text."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace").strip()[:500]
    found = body.get("error", body) if isinstance(body, dict) else body
    message = found.get("message", found) if isinstance(found, dict) else found
    return str(message)[:500]


def parse(content: bytes | str) -> object:
    """JSON; raises MalformedReplyError, which is retried like a broken connection."""
    try:
        return cast(object, orjson.loads(content))
    except orjson.JSONDecodeError as exc:
        raise MalformedReplyError(f"not JSON: {content[:80]!r}") from exc


def as_object(value: object) -> Json:
    """A JSON object, or MalformedReplyError."""
    if not isinstance(value, dict):
        raise MalformedReplyError(f"an object was expected, not {str(value)[:80]!r}")
    return value


def as_list(value: object) -> Sequence[object]:
    """A JSON array, or MalformedReplyError."""
    if not isinstance(value, list):
        raise MalformedReplyError(f"an array was expected, not {str(value)[:80]!r}")
    return value


def root_of(url: str) -> str:
    """A server's root: its URL without the /v1 that OpenAI's clients add to it. Raises UnsupportedModelError."""
    if not re.match(r"https?://[^/\s]+", url):
        raise UnsupportedModelError(f"{url!r} is no URL of a server: write http://host:port or https://…/v1")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
