"""What only a Qdrant server has and its client's local mode hides: payload indexes, graphs by tenant over quantised
vectors, rate limits, shards by key, versions behind an alias, a full disk."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from indexers.base import CollectionSpec, Float32, IndexUnavailableError, Namespace, Point, View
from indexers.filter import parse_filter
from indexers.qdrant import QdrantIndex
from indexers.qdrant_collection import QdrantOptions, Quantization
from indexers.qdrant_point import marker_id
from indexers.qdrant_server import QdrantServer
from tests.live.qdrant import need_cluster, new_prefix, node, opened

DIMENSION = 96
NAMESPACE = Namespace(CollectionSpec("docs", DIMENSION), "default")


def vectors(seed: int, count: int) -> Float32:
    """Unit vectors in 40 loose clusters, which are the same for every seed."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((40, DIMENSION))
    made = (centres[rng.integers(0, 40, count)] + rng.standard_normal((count, DIMENSION))).astype(np.float32)
    unit: Float32 = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def points(seed: int, count: int) -> list[Point]:
    return [Point(f"p{i:05}", v, None, {"n": i % 10}) for i, v in enumerate(vectors(seed, count))]


async def graphs_are_built(client: AsyncQdrantClient, name: str) -> None:
    """Wait until the optimiser has indexed what there is."""
    async with asyncio.timeout(120):
        while True:
            info = await client.get_collection(name)
            if info.status == models.CollectionStatus.GREEN and info.indexed_vectors_count:
                return
            await asyncio.sleep(0.2)


# --- how collections are laid out ----------------------------------------------------------------------------------


async def test_payload_indexes(qdrant_server: QdrantServer) -> None:
    async with opened(qdrant_server, QdrantOptions(prefix=new_prefix(), shards=2)) as index:
        await index.create(NAMESPACE)
        await index.put(NAMESPACE, [replace(points(1, 1)[0], metadata={"n": 1, "s": "x"})], 1)
        info = await index._client.get_collection(index.collections.target("docs"))
        fields = {name: (each.data_type, each.params) for name, each in info.payload_schema.items()}
        assert {name for name, (kind, _) in fields.items() if kind == "keyword"} == {"ns", "i", "g", "t"}
        assert {name[0] for name, (kind, _) in fields.items() if kind == "integer"} == {"b", "d", "n"}
        tenant = fields["ns"][1]
        assert isinstance(tenant, models.KeywordIndexParams)
        assert tenant.is_tenant
        for name, (_, params) in fields.items():
            assert isinstance(params, models.KeywordIndexParams | models.IntegerIndexParams)
            assert (params.enable_hnsw is False) == (name != "ns"), name
        assert (info.config.hnsw_config.m, info.config.hnsw_config.payload_m) == (0, 16)
        assert info.config.params.shard_number == 2


@pytest.mark.parametrize("quantization", ["scalar", "turbo", "binary"])
async def test_graphs_of_tenants_over_quantised_vectors_find_what_is_nearest(
    qdrant_server: QdrantServer, quantization: Quantization
) -> None:
    """Two tenants of one collection, large enough for graphs of their own: recall against an exact search."""
    stored, asked = vectors(2, 1500), vectors(4, 20)
    other = replace(NAMESPACE, name="other")
    options = QdrantOptions(prefix=new_prefix(), quantization=quantization)
    async with opened(qdrant_server, options) as index:
        await index.create(NAMESPACE)
        await index.create(other)
        name, client = f"{index.collections.target('docs')}-v1", index._client
        await client.update_collection(  # graphs from some hundreds of vectors on, not from ten thousand
            name,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=100),
            hnsw_config=models.HnswConfigDiff(full_scan_threshold=100),
        )
        await index.put(NAMESPACE, points(2, 1500), 1)
        await index.put(other, points(3, 500), 1)
        await graphs_are_built(client, name)
        shares = {10: list[float](), 100: list[float]()}
        for query in asked:
            nearest = [f"p{i:05}" for i in np.argsort(-(stored @ query), kind="stable")]
            exact = await index.search_dense(NAMESPACE, query, View(1), 10, exact=True)
            assert [hit.id for hit in exact] == nearest[:10]
            for top_k, found in shares.items():
                hits = await index.search_dense(NAMESPACE, query, View(1), top_k)
                assert len(hits) == top_k
                found.append(len({hit.id for hit in hits} & set(nearest[:top_k])) / top_k)
                best = stored[int(hits[0].id[1:])] @ query
                assert hits[0].score == pytest.approx(best, abs=1e-5)  # the full vector's, not the quantised one's
            few = await index.search_dense(NAMESPACE, query, View(1, None, parse_filter({"n": {"$gte": 9}})), 10)
            assert [hit.id for hit in few] == [id_ for id_ in nearest if id_.endswith("9")][:10]
        assert np.mean(shares[10]) >= 0.99, shares
        assert np.mean(shares[100]) >= 0.97, shares


# --- versions ------------------------------------------------------------------------------------------------------


async def test_another_version_takes_the_place_while_it_is_read(qdrant_server: QdrantServer) -> None:
    """Whatever a search finds is all of the one version or all of the other."""
    async with opened(qdrant_server, QdrantOptions(prefix=new_prefix())) as index:
        await index.create(NAMESPACE)
        await index.put(NAMESPACE, points(1, 30), 1)
        green = index.at_version(2)
        await green.create(NAMESPACE)
        await green.put(NAMESPACE, points(1, 50), 1)
        counts, is_over = list[int](), False

        async def read() -> None:
            while not is_over:
                counts.append(len(await index.search_dense(NAMESPACE, vectors(1, 1)[0], View(1), 100)))

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        await index.collections.switch("docs", 2)
        await index.collections.remove("docs", 1)
        await asyncio.sleep(0.2)
        is_over = True
        await reading
        assert counts == sorted(counts)
        assert set(counts) == {30, 50}


async def test_shards_of_a_namespaces_own(qdrant_server: QdrantServer) -> None:
    need_cluster(qdrant_server)
    options = QdrantOptions(prefix=new_prefix(), sharding="custom")
    async with opened(qdrant_server, options) as index:
        for name in ("a", "b"):
            space = replace(NAMESPACE, name=name)
            await index.create(space)
            await index.create(space)
            await index.put(space, points(1, 3), 1)
        target = index.collections.target("docs")

        async def shards() -> dict[str, int]:
            listed = await index._client.collection_cluster_info(target)
            return {str(shard.shard_key): shard.points_count for shard in listed.local_shards}

        assert list((await shards()).values()) == [4, 4]  # the marker is one
        await index.drop(replace(NAMESPACE, name="b"))
        assert list((await shards()).values()) == [4]
        assert await index.list("docs") == ["a"]


# --- a server that has enough --------------------------------------------------------------------------------------


async def write_on(client: AsyncQdrantClient, name: str) -> None:
    """A thousand writes of a point that is there."""
    for _ in range(1000):
        await client.set_payload(name, {"x": 1}, points=[marker_id(NAMESPACE.name)])


@pytest.mark.parametrize("over", ["gRPC", "REST"])
async def test_a_rate_limit_is_waited_for(qdrant_server: QdrantServer, over: str) -> None:
    where = replace(qdrant_server, grpc_port=0) if over == "REST" else qdrant_server
    async with opened(where, QdrantOptions(prefix=new_prefix())) as index:
        await index.create(NAMESPACE)
        name = f"{index.collections.target('docs')}-v1"
        limit = models.StrictModeConfig(enabled=True, write_rate_limit=300)  # a minute
        await index._client.update_collection(name, strict_mode_config=limit)
        with pytest.raises(ResourceExhaustedResponse):
            await write_on(index._client, name)
        await index.put(NAMESPACE, points(1, 2), 1)
        assert await index.count(NAMESPACE, None) == 2


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of this size; skips where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="refdesk-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    try:
        if mounted.returncode != 0:
            pytest.skip("needs the right to mount a small disk")
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_full_disk(tmp_path: Path) -> None:
    """What was written stays readable, further writes say why they fail, and go on when there is room."""
    with small_disk("160m") as disk, node(tmp_path, storage__storage_path=str(disk / "storage")) as small:
        index = QdrantIndex.on(small.reached.client(), QdrantOptions(prefix=new_prefix()))
        await index.create(NAMESPACE)
        await index.put(NAMESPACE, points(1, 20), 1)
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free
        filler.write_bytes(bytes(free - 4096))

        async def fill() -> None:
            for commit in range(2, 400):
                await index.put(NAMESPACE, points(commit, 256), commit)

        with pytest.raises(IndexUnavailableError, match=r"Qdrant failed .*(disk|space)"):
            await fill()
        assert len(await index.search_dense(NAMESPACE, vectors(1, 1)[0], View(1), 100)) == 20
        filler.unlink()
        await index.undo(NAMESPACE, 1)
        await index.put(NAMESPACE, points(1, 30), 2)
        assert await index.count(NAMESPACE, View(1)) == 20
        assert await index.count(NAMESPACE, View(2)) == 30
        await index.close()
