"""The two profiles side by side: the same documents, cut and embedded alike, committed by each one's own writer to its
own index under its own catalog. What either answers can then be compared id by id."""

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexers.base import CollectionSpec, Index
from indexers.sources import Source
from models.base import Embedder, EmbedderInfo, Float32, Passage, PassageEmbedding, QueryEmbedding, Tokenizer
from server.base import Changes, Collection, NamespaceState
from server.build import Desk
from server.catalog import Catalog
from server.commit import Writer
from server.ingest import Ingestion, Target

COLLECTION = "docs"


class Remembered:
    """An embedder that computes each passage once and keeps its vector in a file. Implements models.base.Embedder, but
    for token vectors, which neither leg reads."""

    def __init__(self, embedder: Embedder, file: Path) -> None:
        self._embedder, self._file = embedder, file
        self._vectors: dict[str, Float32] = {}
        if file.is_file():
            with np.load(file) as kept:
                self._vectors = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    @property
    def info(self) -> EmbedderInfo:
        return self._embedder.info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._embedder.tokenizer

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        keys = [self._key(passage.text) for passage in passages]
        new = {key: passage for key, passage in zip(keys, passages, strict=True) if key not in self._vectors}
        found = await self._embedder.embed_passages(list(new.values()), urgent=urgent) if new else []
        self._vectors |= {key: embedding.vector for key, embedding in zip(new, found, strict=True)}
        return [PassageEmbedding(self._vectors[key], None) for key in keys]

    async def embed_queries(self, queries: Sequence[str]) -> list[QueryEmbedding]:
        return await self._embedder.embed_queries(queries)

    async def close(self) -> None:
        """The embedder behind is its owner's to close."""

    def keep(self) -> None:
        """Write what was computed."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, keys=np.array(list(self._vectors)), vectors=np.stack(list(self._vectors.values())))
        partial.replace(self._file)

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self.info.fingerprint}\0{text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Profile:
    """One of the two: its index, and the catalog and the writer over it."""

    name: str
    catalog: Catalog
    index: Index
    writer: Writer

    async def ingest(self, desk: Desk, embedder: Embedder, source: Source, namespace: str) -> NamespaceState:
        """A file into a namespace, cut as the desk cuts; returns the namespace as it is then."""
        target = Target(COLLECTION, namespace)
        ingestion = Ingestion(
            desk.settings, self.catalog, self.writer, embedder=embedder, chunker=desk.pipeline.chunker, target=target
        )
        await ingestion.run([source])
        return await self.catalog.namespace(COLLECTION, namespace)

    async def empty(self, namespace: str) -> None:
        """Delete every document of a namespace."""
        state = await self.catalog.namespace(COLLECTION, namespace)
        after: str | None = None
        while True:
            page, after = await self.catalog.documents(state.id, after, 1000)
            await self.writer.commit(state, Changes(deletes=tuple(document.id for document in page)))
            if after is None:
                return

    async def drop(self) -> None:
        """Remove every namespace from the index."""
        for state in await self.catalog.namespaces(COLLECTION):
            await self.writer.drop(state)


@asynccontextmanager
async def profile(name: str, folder: Path, index: Index, desk: Desk) -> AsyncIterator[Profile]:
    """A profile over an index, which it closes at the end, with an empty catalog in a folder."""
    folder.mkdir(parents=True)
    info = desk.pipeline.models.embedder.info
    catalog = await Catalog.open(folder / "catalog.sqlite")
    spec = CollectionSpec(COLLECTION, info.dimension, language=desk.settings.language)
    await catalog.create_collection(Collection(spec, info.name, info.fingerprint, desk.pipeline.chunker.fingerprint))
    writer = Writer(catalog, index, token_bits_of=info.fingerprint, retention_s=0)
    try:
        yield Profile(name, catalog, index, writer)
    finally:
        await writer.close()
        await catalog.close()
        await index.close()
