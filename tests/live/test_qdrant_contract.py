"""The contract suite of indexes on a real Qdrant server: over gRPC, and over REST with shards of a namespace's own."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from indexers.legs import PairedIndex
from indexers.memory import MemoryIndex
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions
from indexers.qdrant_server import QdrantServer
from tests.contracts.backends import Backend
from tests.contracts.test_index import *  # noqa: F403 (the suite; its indexes are those made here)
from tests.live.qdrant import need_cluster, new_prefix, remove_collections

LAYOUTS = {
    "scalar over gRPC": QdrantOptions(shards=2),
    "turbo over REST": QdrantOptions(quantization="turbo", on_disk=True, sharding="custom"),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def backend(request: pytest.FixtureRequest, qdrant_server: QdrantServer) -> Iterator[Backend]:
    where = replace(qdrant_server, grpc_port=0) if "REST" in request.param else qdrant_server
    if LAYOUTS[request.param].sharding == "custom":
        need_cluster(qdrant_server)
    options = replace(LAYOUTS[request.param], prefix=new_prefix())
    yield Backend(lambda: PairedIndex(QdrantIndex.on(where.client(), options), MemoryIndex()))
    asyncio.run(remove_collections(qdrant_server, options.prefix))
