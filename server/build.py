"""The composition root: the one file that names concrete backends, and the desk that holds what it built."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from indexers.base import DenseIndex, Index, TextIndex
from indexers.chunk import Chunker, ChunkSettings
from models.base import Embedder, Generator, ModelUnavailableError, Reranker, UnsupportedModelError
from models.store import ModelStore
from server.base import InvalidRequestError
from server.catalog import Catalog
from server.commit import Writer
from server.lock import DataFolderLock
from server.node import Node
from server.pipeline import Models, Pipeline
from server.rerank import Depth, Reranking
from server.settings import Settings, read_secret

if TYPE_CHECKING:
    from models.remote import Remote

log = logging.getLogger("refdesk.build")


@dataclass(frozen=True, slots=True)
class Desk:
    """A running refdesk: everything that was opened, and how to close it."""

    settings: Settings
    lock: DataFolderLock
    store: ModelStore
    catalog: Catalog
    index: Index
    writer: Writer
    pipeline: Pipeline
    _opened: AsyncExitStack

    async def close(self) -> None:
        """Close in the reverse order of opening; the data folder is released last."""
        await self._opened.aclose()


async def build(settings: Settings, *, command: str = "refdesk") -> Desk:
    """Open the data folder and the models that the settings name.

    Raises DataFolderHeldError if another process owns the folder; any ModelError of the models named;
    InvalidRequestError for a model node, which has no desk.
    """
    if settings.role == "models":
        raise InvalidRequestError("role='models' keeps no documents: `refdesk serve` is all that it does", "role")
    async with AsyncExitStack() as opened:
        lock = DataFolderLock(settings.data_dir, command=command)
        lock.acquire()
        opened.callback(lock.release)
        store = ModelStore(settings.data_dir)
        catalog = await _open_catalog(settings)
        opened.push_async_callback(catalog.close)
        index = await open_index(settings)
        opened.push_async_callback(index.close)
        models = await _load_models(settings, store, opened)
        writer = Writer(
            catalog, index, token_bits_of=models.embedder.info.fingerprint, retention_s=settings.retention_s
        )
        opened.push_async_callback(writer.close)
        await writer.recover()
        pipeline = Pipeline(settings, catalog, index, writer=writer, models=models, chunker=_chunker(settings, models))
        return Desk(settings, lock, store, catalog, index, writer, pipeline, opened.pop_all())


async def build_node(settings: Settings) -> Node:
    """Load the models of a model node. Raises any ModelError of the models named."""
    async with AsyncExitStack() as opened:
        store = ModelStore(settings.data_dir)
        embedder = await _load_embedder(settings, store)
        opened.push_async_callback(embedder.close)
        reranking = await _load_reranker(settings, store, embedder)
        if reranking is not None:
            opened.push_async_callback(reranking.reranker.close)
        return Node(settings, embedder, reranking.reranker if reranking else None, opened.pop_all())


async def _open_catalog(settings: Settings) -> Catalog:
    if not settings.catalog_url:
        return await Catalog.open(settings.data_dir / "catalog.sqlite")
    from server.postgres import Limits, Postgres

    password = read_secret(settings.catalog_password_file)
    return await Catalog.open(Postgres(settings.catalog_url, password, Limits(read_s=settings.catalog_timeout_s)))


async def open_index(settings: Settings) -> Index:
    """The embedded index of both legs, or a pair of engines, of which one may be it."""
    names = (settings.dense_index, settings.text_index)
    edge: Index | None = None
    if "edge" in names:
        from indexers.edge import EdgeIndex

        edge = EdgeIndex.open(settings.data_dir / "index", max_open_shards=settings.max_open_shards)
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
    with _extra("dense_index='faiss'"):
        from indexers.faiss import FaissIndex
    return FaissIndex.open(
        settings.data_dir / "faiss", device=settings.faiss_device, most_open=settings.max_open_shards
    )


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


@contextmanager
def _extra(what: str) -> Iterator[None]:
    """Name the packages that a setting needs and that the embedded profile does without."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise InvalidRequestError(f"{what} needs {exc.name!r}: install refdesk with the extra 'gpu'") from exc


async def _load_models(settings: Settings, store: ModelStore, opened: AsyncExitStack) -> Models:
    embedder = await _load_embedder(settings, store)
    opened.push_async_callback(embedder.close)
    reranking = await _load_reranker(settings, store, embedder)
    if reranking is not None:
        opened.push_async_callback(reranking.reranker.close)
    fallback = _extractive(embedder)
    generator = fallback
    if settings.generator != "extractive":
        generator = await _load_generator(settings, store)
        opened.push_async_callback(generator.close)
    return Models(embedder, reranking, generator, fallback)


async def _load_embedder(settings: Settings, store: ModelStore) -> Embedder:
    if settings.embedder_urls:
        return await _connect_embedder(settings, store)
    if settings.embedder == "fake":
        from models.fake import FakeEmbedder

        return FakeEmbedder()
    folder = store.resolve(settings.embedder, "embedder")
    load: Callable[..., Embedder]
    if settings.runtime == "torch":
        from models.torch import TorchEmbedder

        load = TorchEmbedder.load
    else:
        from models.openvino import OpenVinoEmbedder

        load = OpenVinoEmbedder.load
    return await asyncio.to_thread(
        load, folder, precision=settings.precision, threads=settings.threads, batch_tokens=settings.batch_tokens
    )


async def _connect_embedder(settings: Settings, store: ModelStore) -> Embedder:
    from models.remote_embedder import Limits, LocalPart, RemoteEmbedder
    from models.vocabulary import read_local_part

    name = settings.embedder
    if settings.embedder_vocabulary:
        local = read_local_part(settings.embedder_vocabulary)
    elif name == "fake":
        from models.fake import WordTokenizer

        local = LocalPart(WordTokenizer(), max_tokens=256)
    else:
        folder = store.resolve(name, "embedder")
        name, local = folder.name, read_local_part(folder.path)
    limits = Limits(settings.embedding_inputs, settings.embedding_in_flight, settings.embedding_requests_per_minute)
    return await RemoteEmbedder.connect(_remote(settings, "embedder"), name, local, limits)


def _remote(settings: Settings, which: Literal["embedder", "reranker", "generator"]) -> "Remote":
    from models.remote import Remote

    return Remote(
        f"{which} {getattr(settings, which)!r}",
        getattr(settings, f"{which}_urls"),
        hint=f"see {which}_urls and {which}",
        api_key=read_secret(getattr(settings, f"{which}_api_key_file")),
    )


async def _load_reranker(settings: Settings, store: ModelStore, embedder: Embedder) -> Reranking | None:
    depth = Depth(settings.rerank_budget_ms)
    if settings.reranker_urls:
        from models.remote_reranker import RemoteReranker

        return Reranking(await RemoteReranker.connect(_remote(settings, "reranker"), settings.reranker), depth)
    if settings.reranker == "none":
        return None
    if settings.reranker == "late-interaction":
        from models.late_interaction import LateInteractionReranker

        if not embedder.info.has_token_vectors:
            raise UnsupportedModelError(
                f"embedder {settings.embedder!r} gives no token vectors, which reranker='late-interaction' reads: "
                "set reranker='none' or name a cross-encoder"
            )
        return Reranking(LateInteractionReranker(embedder.info.fingerprint), depth)
    folder = store.resolve(settings.reranker, "cross-encoder")
    load: Callable[..., Reranker]
    if settings.runtime == "torch":
        from models.torch_cross_encoder import TorchCrossEncoder

        load = TorchCrossEncoder.load
    else:
        from models.openvino import OpenVinoCrossEncoder

        load = OpenVinoCrossEncoder.load
    return Reranking(
        await asyncio.to_thread(load, folder, precision=settings.precision, threads=settings.threads), depth
    )


def _extractive(embedder: Embedder) -> Generator:
    from models.extractive import ExtractiveGenerator

    return ExtractiveGenerator(embedder)


async def _connect_generator(settings: Settings) -> Generator:
    """A generator whose server may still be loading: until it answers, so does the fallback."""
    from models.remote_generator import RemoteGenerator
    from models.vocabulary import read_vocabulary

    generator = RemoteGenerator(
        _remote(settings, "generator"),
        settings.generator,
        vocabulary=read_vocabulary(settings.generator_vocabulary) if settings.generator_vocabulary else None,
        context_length=settings.generator_context_length or None,
    )
    try:
        await generator.learn()
    except ModelUnavailableError as exc:
        log.warning("%s; answers are extractive until it does", exc)
    except BaseException:
        await generator.close()
        raise
    return generator


async def _load_generator(settings: Settings, store: ModelStore) -> Generator:
    if settings.generator_urls:
        return await _connect_generator(settings)
    if settings.generator == "fake":
        from models.fake_generator import FakeGenerator

        return FakeGenerator()
    from models.genai import GenAiGenerator

    folder = store.resolve(settings.generator, "generator")
    return await asyncio.to_thread(
        GenAiGenerator.load,
        folder.path,
        name=folder.name,
        fingerprint=sha256(repr(sorted(folder.manifest.items())).encode()).hexdigest(),
        threads=settings.threads,
    )


def _chunker(settings: Settings, models: Models) -> Chunker:
    info = models.embedder.info
    max_tokens = settings.chunk_tokens or min(512, info.max_tokens)
    if max_tokens > info.max_tokens:
        raise UnsupportedModelError(
            f"chunk_tokens={settings.chunk_tokens} exceeds what embedder {info.name!r} takes: {info.max_tokens}"
        )
    chunk_settings = ChunkSettings(max_tokens=max_tokens, overlap=settings.chunk_overlap)
    return Chunker(models.embedder.tokenizer, chunk_settings, special_tokens=info.special_tokens)
