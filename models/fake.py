"""An embedder and a reranker without weights: deterministic, instant, and sensible enough to rank by shared words.

For trying refdesk out, for tests and for load tests of everything around the models; chosen by the setting `fake`.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from models.base import (
    Candidate,
    EmbedderInfo,
    Float32,
    InputTooLongError,
    Int32,
    ModelUnavailableError,
    Passage,
    PassageEmbedding,
    QueryEmbedding,
    RerankerInfo,
    Tokens,
)

_WORD = re.compile(r"\w+|[^\w\s]")


class WordTokenizer:
    """Implements Tokenizer: a run of word characters is a token, any other visible character is one too.

    An id is a hash of the case-folded word, its lowest three bits the word's length up to 7.
    """

    fingerprint = "words-1"
    vocabulary_size = 2**31

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids and code point offsets of each text."""
        return [_tokens(text) for text in texts]

    def count(self, text: str) -> int:
        """Words and visible characters between them."""
        return sum(1 for _ in _WORD.finditer(text))


class FakeEmbedder:
    """Implements Embedder: a text is the sum of its words' hashed sign vectors, a longer word weighing more."""

    def __init__(self, dimension: int = 128, max_tokens: int = 256) -> None:
        self.tokenizer = WordTokenizer()
        self.info = EmbedderInfo(
            name="fake",
            fingerprint=f"fake-1-{dimension}",
            dimension=dimension,
            max_tokens=max_tokens,
            special_tokens=0,
            precision="f32",
            has_token_vectors=True,
        )
        self._closed = False

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        """Raises InputTooLongError for a passage over the limit, ModelUnavailableError once closed."""
        self._refuse_if_closed()
        embeddings = []
        for i, passage in enumerate(passages):
            ids = _tokens(passage.text).ids if passage.token_ids is None else passage.token_ids
            if len(ids) > self.info.max_tokens:
                raise InputTooLongError(
                    f"Passage {i} has {len(ids)} tokens; {self.info.name!r} takes {self.info.max_tokens}. "
                    "Cut it into smaller chunks."
                )
            vectors = self._token_vectors(ids)
            embeddings.append(PassageEmbedding(_pool(vectors, ids), np.packbits(vectors > 0, axis=1)))
        return embeddings

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        """A question over the limit is cut to its first tokens."""
        self._refuse_if_closed()
        embeddings = []
        for text in texts:
            ids = _tokens(text).ids[: self.info.max_tokens]
            vectors = self._token_vectors(ids)
            embeddings.append(QueryEmbedding(_pool(vectors, ids), vectors, len(ids)))
        return embeddings

    async def close(self) -> None:
        self._closed = True

    def _token_vectors(self, ids: Int32) -> Float32:
        """(tokens, dimension), unit length: the bits of a hash of each id, as signs."""
        size = self.info.dimension // 8
        digests = b"".join(_stretch(int(i), size) for i in ids)
        bits = np.unpackbits(np.frombuffer(digests, np.uint8).reshape(len(ids), size), axis=1)
        return (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(self.info.dimension))

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ModelUnavailableError("The fake embedder was closed; make a new one.")


class FakeReranker:
    """Implements Reranker by reading: the share of the question's words, by length, that a passage holds."""

    def __init__(self) -> None:
        self.info = RerankerInfo("fake", "fake-1", "text")
        self._closed = False

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """Scores in [0, 1], the shorter of two passages with the same words first by a hair."""
        if self._closed:
            raise ModelUnavailableError("The fake reranker was closed; make a new one.")
        asked = np.unique(_tokens(query).ids)
        scores = []
        for candidate in candidates:
            held = _tokens(candidate.text).ids
            share = _weights(asked[np.isin(asked, held)]).sum() / max(1.0, _weights(asked).sum())
            scores.append(share * (1 - 1e-3 * len(held) / (1 + len(held))))
        return np.array(scores, np.float32)

    async def close(self) -> None:
        self._closed = True


def _tokens(text: str) -> Tokens:
    found = list(_WORD.finditer(text))
    return Tokens(
        ids=np.array([_word_id(match.group()) for match in found], np.int32),
        offsets=np.array([match.span() for match in found], np.int32).reshape(-1, 2),
    )


def _word_id(word: str) -> int:
    digest = blake2b(word.casefold().encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return (int.from_bytes(digest, "big") >> 4 << 3) | min(len(word), 7)


def _stretch(word_id: int, size: int) -> bytes:
    """`size` bytes that depend on the id alone."""
    blocks = (blake2b(word_id.to_bytes(8, "big"), salt=bytes([n])).digest() for n in range(-(-size // 64)))
    return b"".join(blocks)[:size]


def _weights(ids: Int32) -> Float32:
    return np.asarray(ids & 7, np.float32)


def _pool(vectors: Float32, ids: Int32) -> Float32:
    """The weighted sum, to unit length; the first axis where there is nothing to sum."""
    pooled: Float32 = np.matmul(_weights(ids), vectors, dtype=np.float32)
    length = float(np.linalg.norm(pooled))
    if length < 1e-6:
        pooled, length = np.eye(1, vectors.shape[1], dtype=np.float32).reshape(-1), 1.0
    unit: Float32 = np.divide(pooled, length, dtype=np.float32)
    return unit
