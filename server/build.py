"""The composition root, and the desk that holds what it built. build_models and build_stores name concrete backends."""

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexers.base import Index, IndexerError
from indexers.bm25 import Bm25
from indexers.chunk import Chunker, ChunkSettings
from models import cpu
from models.base import UnsupportedModelError
from models.store import ModelStore
from server.base import InvalidRequestError
from server.bell import Bell, LocalBell
from server.build_models import load_embedder, load_models, load_reranker
from server.build_stores import open_catalog, open_index, open_originals, open_redis, open_s3
from server.catalog import Catalog
from server.catalog_jobs import Room
from server.commit import Writer
from server.jobs import GONE_S, Jobs
from server.lock import DataFolderLock
from server.node import Node
from server.originals import Originals
from server.pipeline import Models, Pipeline
from server.rates import Rates
from server.settings import Settings
from server.share import Share

if TYPE_CHECKING:
    from server.redis import Redis
    from server.s3 import S3

log = logging.getLogger("refdesk.build")


SERVE = "refdesk serve"  # the command beside whose ingestions there are searches


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
    originals: Originals
    s3: "S3 | None"  # the S3 server that the settings name
    jobs: Jobs
    rates: Rates
    redis: "Redis | None"
    _opened: AsyncExitStack

    async def close(self) -> None:
        """Close in the reverse order of opening; the data folder is released last."""
        await self._opened.aclose()


def _check_language(language: str) -> None:
    try:
        Bm25(language)
    except IndexerError as exc:
        raise InvalidRequestError(str(exc), "language") from exc


async def build(settings: Settings, *, command: str = "refdesk") -> Desk:
    """Open the data folder and the models that the settings name.

    Raises DataFolderHeldError if another process owns the folder; any ModelError of the models named;
    InvalidRequestError for a model node, which has no desk.
    """
    if settings.role == "models":
        raise InvalidRequestError("role='models' keeps no documents: `refdesk serve` is all that it does", "role")
    _check_language(settings.language)  # before a collection is made with it, which nothing could open again
    if command != SERVE:  # nobody searches beside it
        settings = settings.model_copy(update={"ingestion_priority": "low"})
    async with AsyncExitStack() as opened:
        lock = DataFolderLock(settings.data_dir, command=command)
        lock.acquire()
        opened.callback(lock.release)
        store = ModelStore(settings.data_dir)
        catalog = await open_catalog(settings)
        opened.push_async_callback(catalog.close)
        share = _share(settings)
        index = await open_index(settings, share.give_way)
        opened.push_async_callback(index.close)
        s3 = await open_s3(settings)
        if s3 is not None:
            opened.push_async_callback(s3.close)
        originals = await Originals.of(catalog, open_originals(settings, s3), keeps=settings.keep_originals)
        opened.push_async_callback(originals.close)
        models = await load_models(settings, store, opened)
        writer = Writer(
            catalog,
            index,
            token_bits_of=models.embedder.info.fingerprint,
            retention_s=settings.retention_s,
            originals=originals,
        )
        opened.push_async_callback(writer.close)
        await writer.recover()
        redis, rates, shared_cache = await open_redis(settings, opened)
        pipeline = Pipeline(
            settings,
            catalog,
            index,
            writer=writer,
            models=models,
            chunker=_chunker(settings, models),
            shared_cache=shared_cache,
            share=share,
            originals=originals,
        )
        jobs = _jobs(settings, catalog, pipeline, redis)
        opened.push_async_callback(jobs.close)
        return Desk(
            settings,
            lock,
            store,
            catalog,
            index,
            writer,
            pipeline,
            originals=originals,
            s3=s3,
            jobs=jobs,
            rates=rates,
            redis=redis,
            _opened=opened.pop_all(),
        )


async def build_node(settings: Settings) -> Node:
    """Load the models of a model node. Raises any ModelError of the models named."""
    async with AsyncExitStack() as opened:
        store = ModelStore(settings.data_dir)
        embedder = await load_embedder(settings, store)
        opened.push_async_callback(embedder.close)
        reranking = await load_reranker(settings, store, embedder)
        if reranking is not None:
            opened.push_async_callback(reranking.reranker.close)
        return Node(settings, embedder, reranking.reranker if reranking else None, opened.pop_all())


def _share(settings: Settings) -> Share:
    embeds_here = settings.runtime == "openvino" and not settings.embedder_urls
    return Share(settings.ingestion_share if embeds_here else 0.0, settings.threads or cpu.cores())


def _jobs(settings: Settings, catalog: Catalog, pipeline: Pipeline, redis: "Redis | None") -> Jobs:
    bell: Bell = LocalBell()
    if redis is not None:
        from server.redis_bell import RedisBell

        bell = RedisBell(redis)
    room = Room(settings.max_jobs, settings.max_job_bytes)
    return Jobs(catalog, pipeline.ingest, bell=bell, room=room, gone_s=GONE_S if settings.catalog_url else 0.0)


def _chunker(settings: Settings, models: Models) -> Chunker:
    info = models.embedder.info
    max_tokens = settings.chunk_tokens or min(512, info.max_tokens)
    if max_tokens > info.max_tokens:
        raise UnsupportedModelError(
            f"chunk_tokens={settings.chunk_tokens} exceeds what embedder {info.name!r} takes: {info.max_tokens}"
        )
    chunk_settings = ChunkSettings(max_tokens=max_tokens, overlap=settings.chunk_overlap)
    return Chunker(models.embedder.tokenizer, chunk_settings, special_tokens=info.special_tokens)
