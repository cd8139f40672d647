"""Small documents, cut and embedded without a model: what a commit takes, deterministic from their words."""

import hashlib

import numpy as np

from indexers.base import Chunk, CollectionSpec, Document, Metadata
from models.base import PassageEmbedding
from server.base import Collection, PreparedDocument, document_id, document_version

DIMENSION = 32
CHUNKING = "words-1"
COLLECTION = Collection(CollectionSpec("docs", DIMENSION), "fake", "fake-fingerprint", CHUNKING)


def embed(text: str, dimension: int = DIMENSION, tokens: int | None = None) -> PassageEmbedding:
    """A unit vector and token bits that follow from the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(dimension).astype(np.float32)
    shape = (tokens or len(text.split()) + 2, dimension // 8)
    return PassageEmbedding(vector / np.linalg.norm(vector), rng.integers(0, 256, shape, np.uint8))


def prepare(
    uri: str,
    text: str,
    *,
    metadata: Metadata | None = None,
    groups: tuple[str, ...] = (),
    chunk_chars: int = 40,
    namespace: str = "default",
    dimension: int = DIMENSION,
    tokens: int | None = None,
) -> PreparedDocument:
    """A document cut every `chunk_chars` characters."""
    document = Document(
        uri=uri,
        title=f"Title of {uri}",
        text=text,
        media_type="text/plain",
        source_sha256=hashlib.sha256(text.encode()).hexdigest(),
        extractor="text-1",
        metadata=metadata or {},
    )
    cuts = range(0, len(text), chunk_chars)
    chunks = [
        Chunk(
            index=index,
            start=start,
            end=min(len(text), start + chunk_chars),
            context=f"{document.title}\n",
            page=1 + index // 2,
            heading_path=("Part", str(index // 2)),
            token_ids=np.arange(3, dtype=np.int32),
            token_count=3,
        )
        for index, start in enumerate(cuts)
    ]
    return PreparedDocument(
        id=document_id(COLLECTION.spec.name, namespace, uri),
        version=document_version(document, CHUNKING),
        chunking=CHUNKING,
        document=document,
        groups=groups,
        chunks=chunks,
        embeddings=[embed(text[c.start : c.end], dimension, tokens) for c in chunks],
    )
