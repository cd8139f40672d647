"""The connection to an OpenSearch cluster: requests repeated within reason, refusals as our errors, and bulk writes
judged item by item. Typed values leave; the client library's dictionaries stay here."""

import ssl
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSSLError
from opensearchpy import AIOHttpConnection, AsyncOpenSearch
from opensearchpy import exceptions as refusals

from indexers.base import IndexerError, IndexUnavailableError, NamespaceNotFoundError
from indexers.opensearch_bulk import Lines, Operation, Postponed, batches, judge, without_text
from indexers.retry import Backoff, Retries, wait_of_status

_SEARCHES = Backoff(attempts=2, base_s=0.05)  # the other leg answers alone sooner than a third attempt would

Query = Mapping[str, object]
Parameters = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Access:
    """Where a cluster is and how to be let in. `ca_file` None: the system's certificate authorities."""

    urls: Sequence[str]
    user: str = ""
    password: str = ""
    ca_file: Path | None = None
    timeout_s: float = 30.0  # of one request


@dataclass(frozen=True, slots=True)
class Found:
    """A hit: its key in the index, its sort values, and its source if that was asked for."""

    key: str
    sort: Sequence[object]
    source: Mapping[str, Any]


class Client:
    """A cluster. Every call raises IndexUnavailableError where it does not answer or refuses, NamespaceNotFoundError
    where an index is gone."""

    def __init__(self, access: Access) -> None:
        self._access = access
        secure = any(url.startswith("https:") for url in access.urls)
        self._opensearch = AsyncOpenSearch(
            hosts=list(access.urls),
            headers={"authorization": _basic(access)} if access.user else None,
            ssl_context=_trusting(access.ca_file) if secure else None,
            timeout=access.timeout_s,
            connection_class=_Connection,
            max_retries=0,  # ours are within a budget
            maxsize=32,
        )
        self._writing, self._searching = Retries(), Retries(_SEARCHES)
        self._is_closed = False

    async def close(self) -> None:
        self._is_closed = True
        await self._opensearch.close()

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        retries: Retries | None = None,
        ignore: int | None = None,
        parameters: Parameters | None = None,
    ) -> dict[str, Any]:
        """One request, idempotent, and its answer, be its status 2xx or `ignore`. Parameters that are None are left
        out."""
        given: dict[str, object] = {name: value for name, value in (parameters or {}).items() if value is not None}
        if ignore is not None:
            given["ignore"] = ignore

        async def attempt() -> dict[str, Any]:
            answer = await self._opensearch.transport.perform_request(method, path, params=given, body=body)
            if not isinstance(answer, dict):
                raise refusals.SerializationError(f"{method} {path}: {type(answer).__name__} instead of an object")
            return answer

        self._check_open()
        with map_errors(f"{method} {path}"):
            return await (retries or self._writing).run(attempt, _wait_s)

    async def source(self, index: str, key: str) -> Mapping[str, Any] | None:
        """A document by its key, as it was last written; None if it or its index is not there."""
        try:
            return await self.send("GET", f"/{index}/_source/{key}")
        except NamespaceNotFoundError:
            return None

    async def search(self, path: str, body: Query, parameters: Parameters | None = None) -> list[Found]:
        """Hits of all shards; where one of them failed the whole search has."""
        given = {"allow_partial_search_results": "false", **(parameters or {})}
        answer = await self.send("POST", path, body, retries=self._searching, parameters=given)
        return [Found(hit["_id"], hit.get("sort", ()), hit.get("_source", {})) for hit in answer["hits"]["hits"]]

    async def count(self, index: str, query: Query, routing: str | None = None) -> int:
        """How many documents a query finds, in all shards."""
        body = {"size": 0, "track_total_hits": True, "query": query}
        given = {"allow_partial_search_results": "false", "routing": routing}
        answer = await self.send("POST", f"/{index}/_search", body, parameters=given)
        return int(answer["hits"]["total"]["value"])

    async def refresh(self, index: str) -> None:
        """Let searches see every write so far, on every copy of every shard."""
        answer = await self.send("POST", f"/{index}/_refresh")
        if answer["_shards"]["failed"]:
            raise IndexUnavailableError(f"OpenSearch: refresh of {index!r} failed on some shards; look at its log")

    async def bulk(self, operations: Sequence[Operation]) -> None:
        """Write all, at most BULK_OPERATIONS or about BULK_BYTES a request. An item that is refused for the moment is
        repeated, alone; one that is refused for good raises, after its request was judged whole. What is to be updated
        or deleted and is not there counts as done."""
        for batch in batches(operations):
            await self._bulk(batch)

    async def _bulk(self, batch: Lines) -> None:
        left = list(batch)

        async def attempt() -> None:
            nonlocal left
            body = b"".join(line for _, line in left)
            answer = await self._opensearch.transport.perform_request(
                "POST", "/_bulk", params={"require_alias": "true"}, body=body
            )
            left, postponed = judge(left, answer["items"])
            if postponed is not None:
                raise postponed

        self._check_open()
        with map_errors("bulk write"):
            await self._writing.run(attempt, _wait_s)

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")


def _basic(access: Access) -> str:
    """The library would write Latin-1, in which most passwords cannot be written; OpenSearch reads UTF-8."""
    return "Basic " + b64encode(f"{access.user}:{access.password}".encode()).decode()


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # SSLError is one
        raise IndexerError(f"opensearch_ca_file {str(ca_file)!r} is no file of PEM certificates: {exc}") from exc


class _Connection(AIOHttpConnection):
    """Keeps a refusal's Retry-After, which the library drops, and logs no bodies: they hold texts and questions."""

    async def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        status, given, data = await super().perform_request(
            method, url, params, body, timeout=timeout, ignore=range(300, 600), headers=headers
        )
        if 200 <= status < 300 or status in ignore:
            return status, given, data
        try:
            self._raise_error(status, data, given.get("content-type"))
        except refusals.TransportError as exc:
            exc.retry_after = given.get("retry-after")  # type: ignore[attr-defined]
            raise

    def log_request_fail(self, *arguments: object, **named: object) -> None:
        pass  # the error raised says it

    def log_request_success(self, *arguments: object, **named: object) -> None:
        pass


# --- errors --------------------------------------------------------------------------------------------------------


@contextmanager
def map_errors(what: str) -> Iterator[None]:
    """Translate whatever the client library raises."""
    try:
        yield
    except (refusals.OpenSearchException, refusals.OpenSearchDslException, refusals.ImproperlyConfigured) as exc:
        raise _translated(what, exc) from exc
    except Postponed as exc:
        raise IndexUnavailableError(f"OpenSearch: {what}: {exc}; it was repeated in vain: retry later") from exc


def _translated(what: str, exc: Exception) -> IndexerError:
    match exc:
        case refusals.ConnectionError() if _is_untrusted(exc):
            return IndexUnavailableError(
                f"OpenSearch: no trusted TLS connection: {exc.error}; name the issuer in opensearch_ca_file"
            )
        case refusals.ConnectionTimeout():
            return IndexUnavailableError(f"OpenSearch: {what}: no answer in time; look at the cluster's load")
        case refusals.ConnectionError():
            return IndexUnavailableError(
                f"OpenSearch does not answer: {exc.error}; see that it runs at opensearch_urls"
            )
        case refusals.AuthenticationException():
            return IndexUnavailableError("OpenSearch refuses us: set opensearch_user and opensearch_password_file")
        case refusals.AuthorizationException():
            return IndexUnavailableError(f"OpenSearch: {what} is not allowed: {_reason(exc)}; give the user that right")
        case refusals.NotFoundError() if _kind(exc) != "search_context_missing_exception":
            return NamespaceNotFoundError(f"OpenSearch: {what}: {_reason(exc)}")
        case refusals.TransportError():
            return IndexUnavailableError(f"OpenSearch: {what} failed with {exc.status_code}: {_reason(exc)}")
    return IndexUnavailableError(f"OpenSearch: {what}: {exc}; is it OpenSearch that answers at opensearch_urls?")


def _is_untrusted(exc: refusals.ConnectionError) -> bool:
    """The library has a class for this, but raises the one above it."""
    return isinstance(exc, refusals.SSLError) or isinstance(exc.info, ClientSSLError)


def _kind(exc: refusals.TransportError) -> str:
    """The innermost cause's type."""
    return str(_cause(exc).get("type", exc.error))


def _reason(exc: refusals.TransportError) -> str:
    return without_text(str(_cause(exc).get("reason", exc.error)))[:500]


def _cause(exc: refusals.TransportError) -> Mapping[str, Any]:
    info: Any = exc.info
    try:
        cause = info["error"]["root_cause"][0]
    except (LookupError, TypeError):
        return {}
    return cause if isinstance(cause, dict) else {}


def _wait_s(exc: Exception) -> float | None:
    match exc:
        case Postponed():
            return 0.0
        case refusals.ConnectionError() if _is_untrusted(exc):
            return None
        case refusals.ConnectionError():
            return 0.0
        case refusals.TransportError() if isinstance(exc.status_code, int):
            return wait_of_status(exc.status_code, getattr(exc, "retry_after", None))
    return None
