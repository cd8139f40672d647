"""What is the Qdrant leg's own: versions behind an alias, what is indexed, what is repeated, what fails how.

On the client's local mode; tests/live runs what needs a server, when there is one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from inspect import isclass

import grpc
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata
from httpx import ConnectError, Headers
from qdrant_client import AsyncQdrantClient
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions as http_exceptions

from indexers.base import (
    CollectionSpec,
    DimensionMismatchError,
    FilterError,
    IndexerError,
    IndexUnavailableError,
    Namespace,
    NamespaceNotFoundError,
    Point,
    View,
)
from indexers.filter import parse_filter
from indexers.qdrant import MAX_INDEXED_NUMBERS, QdrantIndex
from indexers.qdrant_calls import CollectionMissingError, map_errors, wait_s
from indexers.qdrant_collection import QdrantOptions
from indexers.qdrant_point import server_id
from indexers.retry import Backoff, Retries

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]
NAMESPACE = Namespace(CollectionSpec("docs", 16), "default")
QUICK = Retries(Backoff(base_s=0.001))


def points(commit: int, count: int = 50) -> list[Point]:
    vectors = np.random.default_rng(commit).standard_normal((count, 16)).astype(np.float32)
    return [Point(f"p{i}", v, None, {"commit": commit}) for i, v in enumerate(vectors)]


@pytest.fixture
async def index() -> AsyncIterator[QdrantIndex]:
    made = QdrantIndex.on(AsyncQdrantClient(":memory:"), QdrantOptions(at_once=2))
    await made.create(NAMESPACE)
    yield made
    await made.close()


# --- versions ------------------------------------------------------------------------------------------------------


async def test_another_version_is_filled_unseen_and_takes_the_place_in_one_step(index: QdrantIndex) -> None:
    await index.put(NAMESPACE, points(1), 1)
    green = index.at_version(2)
    with pytest.raises(NamespaceNotFoundError, match="docs:default"):
        await green.count(NAMESPACE, None)
    wider = Namespace(CollectionSpec("docs", 24), "default")  # of another model
    await green.create(wider)
    await green.put(wider, [Point("new", np.ones(24, np.float32))], 1)
    assert await index.collections.live_version("docs") == 1
    assert await index.count(NAMESPACE, None) == 50
    await index.collections.switch("docs", 2)
    assert await index.collections.live_version("docs") == 2
    assert [hit.id for hit in await index.search_dense(wider, np.ones(24, np.float32), View(1), 9)] == ["new"]
    with pytest.raises(IndexerError, match="in use"):
        await index.collections.remove("docs", 2)
    await index.collections.remove("docs", 1)
    with pytest.raises(CollectionMissingError, match="no version 1"):
        await index.collections.switch("docs", 1)
    assert await index.list("docs") == ["default"]


async def test_a_collection_of_another_dimension_or_metric_is_named(index: QdrantIndex) -> None:
    for spec in (CollectionSpec("docs", 17), CollectionSpec("docs", 16, "dotproduct")):
        with pytest.raises(DimensionMismatchError, match="refdesk-docs"):
            await index.create(Namespace(spec, "other"))
    assert await index.list("docs") == ["default"]


async def test_a_creation_that_was_interrupted_is_finished(index: QdrantIndex) -> None:
    half = CollectionSpec("half", 16)
    await index.at_version(1).create(Namespace(half, "a"))  # the collection, but no alias yet
    await index.create(Namespace(half, "b"))
    assert await index.list("half") == ["a", "b"]


async def test_a_drop_that_was_interrupted_is_finished(index: QdrantIndex) -> None:
    await index.put(NAMESPACE, points(1), 1)
    await index.purge(NAMESPACE, [f"p{i}" for i in range(30)])
    assert await index.list("docs") == ["default"]
    await index.drop(NAMESPACE)
    assert await index.list("docs") == []


# --- readers and writers -------------------------------------------------------------------------------------------


async def test_two_processes_see_whole_commits_only(index: QdrantIndex) -> None:
    """A reader that knows nothing of the writer's doing leaves out no condition that hides it."""
    reader = QdrantIndex.on(index._client, QdrantOptions())
    committed, is_done = 0, False

    async def write() -> None:
        nonlocal committed, is_done
        for commit in range(1, 6):
            await index.put(NAMESPACE, points(commit), commit)
            await index.delete(NAMESPACE, ["p0"], commit + 1)
            await index.undo(NAMESPACE, commit)
            committed = commit
            await asyncio.sleep(0)
            await index.sweep(NAMESPACE, commit - 2)
        is_done = True

    async def read() -> int:
        searches = 0
        while not is_done:
            await asyncio.sleep(0)
            view = View(committed, None, parse_filter({"commit": committed}))
            hits = await reader.search_dense(NAMESPACE, points(1)[0].vector, view, 500)
            assert len(hits) == (50 if view.snapshot else 0)
            searches += 1
        return searches

    _, searches = await asyncio.gather(write(), read())
    assert searches


async def test_more_numeric_fields_than_are_indexed_are_searched_all_the_same(
    index: QdrantIndex, caplog: pytest.LogCaptureFixture
) -> None:
    many = MAX_INDEXED_NUMBERS + 5
    wide = Point("wide", np.ones(16, np.float32), None, {f"f{i}": i for i in range(many)})
    await index.put(NAMESPACE, [wide], 1)
    assert "numeric fields" in caplog.text
    for number in (0, many - 1):
        for raw, found in (({"$gte": number}, 1), ({"$gt": number}, 0), ({"$lt": number + 0.5}, 1)):
            assert await index.count(NAMESPACE, View(1, None, parse_filter({f"f{number}": raw}))) == found


def test_server_ids_differ_for_each_namespace_id_and_commit() -> None:
    parts = [("a", "b", 1), ("a", "b", 2), ("a\0b", "", 1), ("a", "\0b", 1), ("", "a\0b", 1), ("ab", "", 1)]
    assert len({server_id(*part) for part in parts}) == len(parts)


# --- failures ------------------------------------------------------------------------------------------------------


def rpc_error(code: grpc.StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), "so it says")


def failures() -> Iterator[Exception]:
    """One of every class and status that the client and its transports raise."""
    yield from (rpc_error(code) for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
    for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504, 507, None):
        yield http_exceptions.UnexpectedResponse(status, "said", b"{}", Headers())
    yield http_exceptions.ResponseHandlingException(ConnectError("refused"))
    yield client_exceptions.ResourceExhaustedResponse("slow down", 7)
    done = (http_exceptions.UnexpectedResponse, http_exceptions.ResponseHandlingException, AioRpcError)
    done += (client_exceptions.ResourceExhaustedResponse,)
    for module in (http_exceptions, client_exceptions, grpc.aio, grpc):
        for kind in vars(module).values():
            if isclass(kind) and issubclass(kind, Exception) and not issubclass(kind, done):
                yield kind()
    yield from (ValueError("x"), RuntimeError("x"), OSError("x"))


@pytest.mark.parametrize("raised", list(failures()), ids=lambda raised: f"{type(raised).__name__} {raised}"[:60])
def test_whatever_the_client_raises_is_translated(raised: Exception) -> None:
    with pytest.raises(IndexerError) as translated, map_errors():
        raise raised
    assert isinstance(translated.value, IndexUnavailableError | CollectionMissingError)
    assert translated.value.__cause__ is raised


def test_a_shard_key_that_is_not_there_is_a_namespace_that_is_not() -> None:
    said = 'Bad request: Shard key "n" not found'
    body = json.dumps({"status": {"error": said}}).encode()
    over_rest = http_exceptions.UnexpectedResponse(400, "Bad Request", body, Headers())
    over_grpc = AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, Metadata(), Metadata(), said)
    for raised in (over_rest, over_grpc):
        with pytest.raises(CollectionMissingError), map_errors():
            raise raised


def test_what_is_not_the_clients_is_left_alone() -> None:
    for passed in (KeyboardInterrupt(), asyncio.CancelledError(), FilterError("x")):
        with pytest.raises(type(passed)), map_errors():
            raise passed


def test_only_what_may_pass_is_repeated() -> None:
    codes = {code for code in grpc.StatusCode if code is not grpc.StatusCode.OK and wait_s(rpc_error(code)) is not None}
    final = {"NOT_FOUND", "INVALID_ARGUMENT", "ALREADY_EXISTS", "UNAUTHENTICATED", "PERMISSION_DENIED"}
    final |= {"FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED"}
    assert {code.name for code in grpc.StatusCode} - {code.name for code in codes} == final | {"OK"}
    assert wait_s(client_exceptions.ResourceExhaustedResponse("slow down", 7)) == 7
    unavailable = http_exceptions.UnexpectedResponse(503, "", b"", Headers({"Retry-After": "3"}))
    assert wait_s(unavailable) == 3
    assert wait_s(ValueError("x")) is None


@pytest.mark.parametrize("prefer_grpc", [True, False])
async def test_a_server_that_is_not_there_is_named(prefer_grpc: bool, free_port: int) -> None:
    client = AsyncQdrantClient(
        url=f"http://127.0.0.1:{free_port}",
        grpc_port=free_port,
        prefer_grpc=prefer_grpc,
        check_compatibility=False,
        timeout=2,
    )
    index = QdrantIndex.on(client, QdrantOptions(), QUICK)
    with pytest.raises(IndexUnavailableError, match="check qdrant_url"):
        await index.count(NAMESPACE, None)
    with pytest.raises(IndexUnavailableError):
        await index.create(NAMESPACE)
    await index.close()


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
