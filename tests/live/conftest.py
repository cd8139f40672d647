"""The servers that live tests share: each is started when the first test asks for it, and stopped at the end."""

from collections.abc import Iterator

import pytest

from indexers.qdrant_server import QdrantServer
from tests.live.opensearch import OpenSearch, opensearch
from tests.live.postgres import PostgresServer, postgres
from tests.live.qdrant import qdrant
from tests.live.redis import RedisServer, redis
from tests.live.s3 import S3Server, s3_server
from tests.live.vllm import Vllm, vllm


@pytest.fixture(scope="session")
def search_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearch]:
    with opensearch(tmp_path_factory.mktemp("opensearch")) as node:
        yield node


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with postgres(fsync="off") as server:  # tests that end it start one of their own
        yield server


@pytest.fixture(scope="session")
def qdrant_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with qdrant(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis(tmp_path_factory.mktemp("redis")) as server:  # tests that end it start one of their own
        yield server


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    with vllm(tmp_path_factory.mktemp("vllm")) as server:
        yield server
