"""Where the settings say that things are kept: catalog, index, originals, and what processes share."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Literal

from indexers.base import DenseIndex, GiveWay, Index, TextIndex, at_once
from server.base import InvalidRequestError
from server.cache import Beneath
from server.catalog import Catalog
from server.data_folder import CATALOG, FAISS, INDEX, ORIGINALS
from server.originals import OriginalStore
from server.rank import Ranking
from server.rates import LocalRates, Rates
from server.secret import read_secret
from server.settings import Settings

if TYPE_CHECKING:
    from server.redis import Redis
    from server.s3 import S3


async def open_catalog(settings: Settings) -> Catalog:
    if not settings.catalog_url:
        return await Catalog.open(settings.data_dir / CATALOG)
    with _extra("catalog_url"):
        from server.postgres import Limits, Postgres

    password = read_secret(settings.catalog_password_file)
    return await Catalog.open(Postgres(settings.catalog_url, password, Limits(read_s=settings.catalog_timeout_s)))


async def open_redis(
    settings: Settings, opened: AsyncExitStack
) -> tuple["Redis | None", Rates, Beneath[Ranking] | None]:
    """What processes share for speed: rates and the cache; without Redis each process keeps its own."""
    if not settings.redis_url:
        return None, LocalRates(), None
    with _extra("redis_url"):
        from server.redis import Redis
        from server.redis_cache import WRITES, RedisCache
        from server.redis_rates import RedisRates

    redis = Redis(
        settings.redis_url,
        read_secret(settings.redis_password_file),
        timeout_s=settings.redis_timeout_ms / 1000,
        connections=settings.max_concurrent + WRITES + settings.job_workers,
    )
    opened.push_async_callback(redis.close)
    cache = RedisCache(redis, settings.cache_ttl_s, encode=Ranking.encode, decode=Ranking.decode)
    opened.push_async_callback(cache.close)
    return redis, RedisRates(redis), cache


async def open_index(settings: Settings, give_way: GiveWay = at_once) -> Index:
    """The embedded index of both legs, or a pair of engines, of which one may be it."""
    names = (settings.dense_index, settings.text_index)
    edge: Index | None = None
    if "edge" in names:
        from indexers.edge import EdgeIndex

        edge = EdgeIndex.open(settings.data_dir / INDEX, max_open_shards=settings.max_open_shards, give_way=give_way)
        if names == ("edge", "edge"):
            return edge
    from indexers.legs import PairedIndex

    try:
        dense = edge if edge and settings.dense_index == "edge" else _open_dense(settings)
        text = edge if edge and settings.text_index == "edge" else _open_opensearch(settings)
    except BaseException:
        if edge is not None:
            await edge.close()
        raise
    return PairedIndex(dense, text)


def _open_dense(settings: Settings) -> DenseIndex:
    """The dense leg that the settings name, where it is not the embedded index. Nothing is sent yet."""
    match settings.dense_index:
        case "qdrant":
            return _open_qdrant(settings)
        case "pinecone":
            from indexers.pinecone import PineconeIndex

            key = read_secret(settings.pinecone_api_key_file) or ""
            return PineconeIndex.at(settings.pinecone_url, key, timeout_s=settings.pinecone_timeout_s)
    with _extra("dense_index='faiss'", "gpu"):
        from indexers.faiss import FaissIndex
    return FaissIndex.open(settings.data_dir / FAISS, device=settings.faiss_device, most_open=settings.max_open_shards)


def _open_qdrant(settings: Settings) -> DenseIndex:
    with _extra("dense_index='qdrant'"):
        from indexers.qdrant import QdrantIndex
        from indexers.qdrant_collection import QdrantOptions
        from indexers.qdrant_server import QdrantServer
    server = QdrantServer(
        settings.qdrant_url,
        grpc_port=settings.qdrant_grpc_port,
        api_key=read_secret(settings.qdrant_api_key_file),
        ca_file=settings.qdrant_ca_file,
        timeout_s=settings.qdrant_timeout_s,
    )
    options = QdrantOptions(
        shards=settings.qdrant_shards,
        replicas=settings.qdrant_replicas,
        write_consistency=settings.qdrant_write_consistency,
        sharding=settings.qdrant_sharding,
        quantization=settings.qdrant_quantization,
        oversampling=settings.qdrant_oversampling,
        on_disk=settings.qdrant_on_disk,
        graph_links=settings.qdrant_graph_links,
        search_width=settings.qdrant_search_width,
        at_once=settings.qdrant_batches,
        prefix=settings.qdrant_prefix,
    )
    return QdrantIndex.on(server.client(), options)


def _open_opensearch(settings: Settings) -> TextIndex:
    with _extra("text_index='opensearch'"):
        from indexers.opensearch import OpenSearchIndex
        from indexers.opensearch_client import Access
        from indexers.opensearch_places import Layout

    access = Access(
        settings.opensearch_urls,
        user=settings.opensearch_user,
        password=read_secret(settings.opensearch_password_file) or "",
        ca_file=settings.opensearch_ca_file,
        timeout_s=settings.opensearch_timeout_s,
    )
    layout = Layout(
        settings.opensearch_prefix,
        max_own=settings.opensearch_own_indices,
        shards=settings.opensearch_shards,
        replicas=settings.opensearch_replicas,
    )
    return OpenSearchIndex.connect(access, layout, settings.opensearch_analysis)


async def open_s3(settings: Settings) -> "S3 | None":
    """A client of the S3 server, which is not asked anything yet."""
    if not settings.s3_endpoint:
        return None
    with _extra("s3_endpoint"):
        from server.s3 import S3, Access, Keys

        key, secret = read_secret(settings.s3_access_key_file), read_secret(settings.s3_secret_key_file)
        access = Access(
            settings.s3_endpoint,
            region=settings.s3_region,
            keys=Keys(key, secret) if key and secret else None,
            ca_file=settings.s3_ca_file,
            path_style=settings.s3_path_style,
            timeout_s=settings.s3_timeout_s,
        )
        return await S3.connect(access)


def open_originals(settings: Settings, s3: "S3 | None") -> OriginalStore:
    if s3 is None or not settings.originals_url:
        from server.originals_folder import FolderOriginals

        return FolderOriginals(settings.data_dir / ORIGINALS)
    from server.originals_s3 import S3Originals
    from server.s3 import Encryption

    encryption = Encryption(settings.s3_encryption, settings.s3_kms_key)
    return S3Originals(s3, settings.originals_url, encryption)


@contextmanager
def _extra(what: str, locked: Literal["cluster", "gpu"] = "cluster") -> Iterator[None]:
    """Name the packages that a setting needs and that the embedded profile does without, and what brings them."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise InvalidRequestError(f"{what} needs {exc.name!r}: install requirements/{locked}.txt") from exc
