"""What the rest of refdesk may ask of a model: embed, rerank, generate, count tokens.

ModelError
├── ModelNotFoundError      no model by that name or path
├── ModelCorruptError       a file is missing, or its sha256 is not the manifest's
├── UnsupportedModelError   an architecture or a setting we cannot build; says which ones we can
├── InputTooLongError       more tokens than the model takes
├── ModelUnavailableError   the runtime or the remote end does not answer, or was closed
└── GenerationTimeoutError  the deadline passed before the answer was whole
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]


class ModelError(Exception):
    """Anything a model refuses or fails at; the message says what, and the way out."""


class ModelNotFoundError(ModelError):
    pass


class ModelCorruptError(ModelError):
    pass


class UnsupportedModelError(ModelError):
    pass


class InputTooLongError(ModelError):
    pass


class ModelUnavailableError(ModelError):
    pass


class GenerationTimeoutError(ModelError):
    pass


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text's tokens without special ones: ids (n,) int32; offsets (n, 2) int32, code points [start, end)."""

    ids: Int32
    offsets: Int32

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Protocol):
    """Cuts text into a model's tokens. Thread-safe, never truncates, adds no special tokens."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def vocabulary_size(self) -> int:
        """Every id is below it."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]: ...

    def count(self, text: str) -> int: ...


Precision = Literal["auto", "int8", "bf16", "f32"]  # what may be asked of a model that computes here


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """Who made a vector. Two vectors may be compared only if their `fingerprint` is the same."""

    name: str
    fingerprint: str  # sha256 over weights, tokenizer, pooling and prefixes; not over the precision of one machine
    dimension: int
    max_tokens: int  # special tokens and prefix included
    special_tokens: int  # how many of max_tokens special tokens and the model's own passage prefix take
    precision: str  # "int8", "bf16" or "f32": what this machine computes in; "remote" if a server does not say
    has_token_vectors: bool


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to embed; `token_ids` (without special tokens), if there are any, save a second tokenisation."""

    text: str
    token_ids: Int32 | None = None


@dataclass(frozen=True, slots=True)
class PassageEmbedding:
    """vector (dimension,) float32, normalised; token_bits (tokens, dimension / 8) uint8: the sign of each component
    of each last-layer token vector (special tokens included), packed by numpy.packbits; None if the model has none."""

    vector: Float32
    token_bits: UInt8 | None


@dataclass(frozen=True, slots=True)
class QueryEmbedding:
    """vector (dimension,) float32, normalised; token_vectors (tokens, dimension) float32, each normalised, or None."""

    vector: Float32
    token_vectors: Float32 | None
    token_count: int


class Embedder(Protocol):
    @property
    def info(self) -> EmbedderInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        """Embed any number of passages, batched by length inside. Raises InputTooLongError rather than truncate.

        `urgent`: somebody waits for these few, as for a question's embedding; they do not queue behind bulk work.
        """
        ...

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        """Embed questions. A question longer than the model takes is cut to its first tokens (it is no stored text)."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RerankerInfo:
    name: str
    fingerprint: str
    reads: Literal["text", "token_bits"]  # what of a candidate it needs
    scores: Literal["logit", "similarity"] = "similarity"  # a logit becomes a probability by the logistic function


@dataclass(frozen=True, slots=True)
class Candidate:
    """One text to score against the question: its words, or its packed token vectors (`RerankerInfo.reads`)."""

    text: str
    token_bits: UInt8 | None = None


class Reranker(Protocol):
    @property
    def info(self) -> RerankerInfo: ...

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """Relevance of each candidate, (n,) float32, higher is better, comparable within one call."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a generator is asked: the messages for a language model, and the same as parts for one that extracts."""

    messages: tuple[Message, ...]
    question: str
    passages: tuple[str, ...] = ()  # passage i is cited as [i + 1]


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    max_tokens: int = 512
    temperature: float = 0.2
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    timeout_s: float = 60.0
    adapter: str | None = None  # another name that the generator's server knows, a LoRA's; GeneratorInfo.has_adapters


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The last one carries `finish_reason` and `usage`, and may have no text."""

    text: str
    finish_reason: Literal["stop", "length"] | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class GeneratorInfo:
    name: str
    fingerprint: str
    context_length: int  # tokens, prompt and answer together
    is_language_model: bool  # False: extracts sentences; it cannot summarise or rewrite
    has_adapters: bool = False  # whether GenerationOptions.adapter means anything to it
    defaults: Mapping[str, str] = field(default_factory=dict)


class Generator(Protocol):
    @property
    def info(self) -> GeneratorInfo: ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the generator's own tokenizer."""
        ...

    async def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt, chat template included."""
        ...

    def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        """Stream an answer. Closing the generator (`aclose`) stops it. A stop string is never part of what is sent.

        Raises InputTooLongError if prompt and max_tokens exceed the context; GenerationTimeoutError at the deadline.
        """
        ...

    async def close(self) -> None: ...
