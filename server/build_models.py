"""The models that the settings name: of the installed kinds one each, or servers reached through a remote one."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from models.base import Embedder, Generator, ModelUnavailableError, Reranker, UnsupportedModelError
from models.store import ModelStore
from server.pipeline import Models
from server.rerank import Depth, Reranking
from server.secret import read_secret
from server.settings import Settings

if TYPE_CHECKING:
    from models.remote import Remote

log = logging.getLogger("refdesk.build")


async def load_models(settings: Settings, store: ModelStore, opened: AsyncExitStack) -> Models:
    embedder = await load_embedder(settings, store)
    opened.push_async_callback(embedder.close)
    reranking = await load_reranker(settings, store, embedder)
    if reranking is not None:
        opened.push_async_callback(reranking.reranker.close)
    fallback = _extractive(embedder)
    generator = fallback
    if settings.generator != "extractive":
        generator = await _load_generator(settings, store)
        opened.push_async_callback(generator.close)
    return Models(embedder, reranking, generator, fallback)


async def load_embedder(settings: Settings, store: ModelStore) -> Embedder:
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

        load = partial(OpenVinoEmbedder.load, bulk=settings.ingestion_priority)
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


async def load_reranker(settings: Settings, store: ModelStore, embedder: Embedder) -> Reranking | None:
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
