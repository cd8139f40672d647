"""The server's values and errors: what travels between the pipeline, the catalog, the faces and the command line.

ServerError
├── InvalidRequestError      the request itself is wrong; names the field
├── NotFoundError            no such collection, namespace, document or key (or none that the caller may know of)
│   └── UnknownModelError    a model id of a request that names no collection, namespace or embedder
├── GoneError                it was here and was deleted
├── ConflictError            it contradicts what is stored: another embedding model, another dimension
├── UnauthorizedError        no key, an unknown one, an expired one
├── ForbiddenError           a key that may not do this
├── ContextTooLongError      the prompt does not fit the generator, whatever is left out
├── DataFolderHeldError      another process owns the data folder; names it
├── OverloadedError          the queue at the door is full; says when to come back
├── CatalogUnavailableError  the catalog's database failed or is closed: a full disk, a broken file
└── StoreUnavailableError    where originals or sources lie failed or refused us: a full disk, S3 away, wrong keys
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from indexers.base import Chunk, CollectionSpec, Document, Metadata, Namespace
from indexers.filter import Filter
from models.base import Message, PassageEmbedding, UInt8, Usage


class ServerError(Exception):
    """Anything the server refuses; the message says what was wrong, the value, and the way out."""


class InvalidRequestError(ServerError):
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFoundError(ServerError):
    pass


class UnknownModelError(NotFoundError):
    pass


class GoneError(ServerError):
    pass


class ConflictError(ServerError):
    pass


class UnauthorizedError(ServerError):
    pass


class ForbiddenError(ServerError):
    pass


class ContextTooLongError(ServerError):
    pass


class DataFolderHeldError(ServerError):
    pass


class OverloadedError(ServerError):
    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CatalogUnavailableError(ServerError):
    """`may_pass`: its server cannot be reached now, and may be in a moment."""

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class StoreUnavailableError(ServerError):
    pass


# --- identity ------------------------------------------------------------------------------------------------------


def _digest(*parts: str) -> str:
    """sha256 of the parts, each with its length, so that no two lists of parts share a digest by concatenation."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode()
        h.update(len(data).to_bytes(8, "big"))
        h.update(data)
    return h.hexdigest()


def document_id(collection: str, namespace: str, uri: str) -> str:
    return "doc_" + _digest(collection, namespace, uri)[:32]


def document_version(document: Document, chunking: str) -> str:
    """sha256 of canonical text, title, marks and chunking fingerprint: what decides where chunks begin and end."""
    marks = "\n".join(f"{m.kind}\t{m.start}\t{m.level}\t{m.text}" for m in document.marks)
    return _digest(document.text, document.title, marks, chunking)


def chunk_id(collection: str, namespace: str, document: str, version: str, index: int) -> str:
    """Of the form indexers.base.CHUNK_ID."""
    return "chk_" + _digest(collection, namespace, document, version, str(index))[:22]


# --- what the catalog keeps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection's settings and the one embedding model whose vectors it holds."""

    spec: CollectionSpec
    embedder: str
    embedder_fingerprint: str
    chunking: str  # fingerprint of the chunking settings


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """A namespace and the commit number E that a search started now reads at.

    `committed_at` (Unix time): commit E of a restored catalog has another. `embedder`: its model's fingerprint.
    """

    id: int
    namespace: Namespace
    commit: int
    committed_at: float
    embedder: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document's present version, as the catalog knows it."""

    id: str
    uri: str
    title: str
    media_type: str
    version: str
    source_sha256: str
    extractor: str
    chunking: str  # fingerprint of the chunker that cut it; another one now means: read and cut again
    metadata: Metadata
    groups: tuple[str, ...]
    size_chars: int
    total_chunks: int
    born: int
    created_at: float  # Unix time, seconds
    updated_at: float
    original: str = ""  # name of the object that holds the source's bytes (originals.py); "": they are not kept
    source_mark: str = ""  # what its store said of the source's state, so that "unchanged" costs no download


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk with its text and what a hit needs of its document. `token_bits` only if asked for."""

    id: str
    document_id: str
    version: str
    uri: str
    title: str
    index: int
    total_chunks: int
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    token_count: int
    text: str
    metadata: Metadata
    groups: tuple[str, ...]
    token_bits: UInt8 | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document's bytes are: the object that keeps them ("": none), and its source's mark ("": it has none)."""

    original: str = ""
    source_mark: str = ""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document cut and embedded, ready for a commit. `embeddings[i]` is that of `chunks[i]`."""

    id: str
    version: str
    chunking: str
    document: Document
    groups: tuple[str, ...] | None  # None: those of the document that is there; of a new one nobody's in particular
    chunks: Sequence[Chunk]
    embeddings: Sequence[PassageEmbedding]
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True)
class DocumentPatch:
    """New metadata (merged) and groups (replaced unless None) of a document whose text stays.

    `seen`: the document as it was when this was decided. If it is gone by the time of the commit, or is of other bytes,
    there is nothing to patch: another writer was faster.
    `source_sha256` and `extractor`, if given: the source's bytes or their reader changed, and the same text came out.
    `origin`, if given, takes the place of the one that is known.
    """

    id: str
    metadata: Metadata = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    source_sha256: str | None = None
    extractor: str | None = None
    origin: Origin | None = None
    seen: StoredDocument | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What one commit makes visible at once."""

    upserts: Sequence[PreparedDocument] = ()
    patches: Sequence[DocumentPatch] = ()
    deletes: Sequence[str] = ()  # document ids; every version goes …
    may_go: Callable[[StoredDocument], bool] | None = None  # … of those that this holds of at the commit; None: of all

    def halves(self) -> "tuple[Changes, Changes]":
        """Upserts and patches in two parts, neither empty if there are two of them."""
        if self.upserts and self.patches:
            return Changes(self.upserts), Changes(patches=self.patches)
        at = (len(self.upserts) + len(self.patches)) // 2
        return Changes(self.upserts[:at], self.patches[:at]), Changes(self.upserts[at:], self.patches[at:])


Role = Literal["read", "write", "admin"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a key's claims. `namespaces` are "collection:namespace" or "collection:*"; None means all.
    `groups` None means every document, whatever its ACL (admin). `requests_per_minute` None: the setting's."""

    key_id: str
    name: str
    roles: frozenset[Role]
    namespaces: tuple[str, ...] | None = None
    groups: frozenset[str] | None = None
    requests_per_minute: float | None = None


# --- search --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A question to 1 to 8 namespaces of a collection. `groups` come from the caller's key, never from the request."""

    question: str
    collection: str
    namespaces: tuple[str, ...] = ("default",)
    top_k: int = 10
    filter: Filter | None = None
    rerank: bool = True
    as_of: int | None = None
    groups: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A chunk found. `ranks` say which leg found it where, from 1: {"dense": 3, "bm25": 1, "rerank": 2}."""

    chunk: StoredChunk
    namespace: str
    score: float
    ranks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, best first, and how they came about."""

    hits: tuple[SearchHit, ...]
    commits: Mapping[str, int]  # namespace → the commit it was read at
    reranker: str | None
    degraded: tuple[str, ...] = ()  # what was missing: "dense leg: …"
    cached: Literal["l1", "l2"] | None = None  # in which level of the cache the ranking was found
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    query_tokens: int = 0
    best_dense: float = 0.0  # the best cosine of the dense leg: what answerability is judged by
    best_rerank: float = 0.0  # the best reranker score, 0 without a reranker


# --- answers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """Code points [start, end) of a document's canonical text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ContextPassage:
    """A chunk placed into the context under a number. `spans` are the parts of it that were placed, in order."""

    number: int
    hit: SearchHit
    spans: tuple[Span, ...]
    text: str
    token_count: int


@dataclass(frozen=True, slots=True)
class Citation:
    """The exact words a sentence of the answer rests on: quote == canonical_text[start:end]."""

    number: int
    document_id: str
    version: str
    chunk_id: str
    uri: str
    title: str
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    quote: str
    quote_sha256: str
    support: float
    answer_start: int  # code points of the answer as sent: the sentence it belongs to
    answer_end: int


@dataclass(frozen=True, slots=True)
class AnswerSentence:
    start: int
    end: int
    supported: bool
    support: float
    citations: tuple[int, ...]  # indices into Answer.citations


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """The last user message is the question; `search.question` is it. `max_tokens` None: the setting. `generator`:
    another model of the generator's server, a LoRA adapter's name. `streamed`: deltas are read as they are made."""

    messages: tuple[Message, ...]
    search: SearchRequest
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    generator: str | None = None
    streamed: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    citations: tuple[Citation, ...]
    sentences: tuple[AnswerSentence, ...]
    passages: tuple[ContextPassage, ...]
    refused: bool  # the context held no answer, and the text says so
    finish_reason: Literal["stop", "length"]
    usage: Usage
    generator: str
    search: SearchResult
    degraded: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer, exactly as it stays: the deltas joined are Answer.text."""

    text: str


AnswerEvent = TextDelta | Answer  # any number of deltas, then the whole answer, once


def is_readable(document_groups: Sequence[str], groups: frozenset[str] | None) -> bool:
    """Whether somebody in `groups` (None: an administrator) may read a document with this ACL (empty: everyone)."""
    return groups is None or not document_groups or not groups.isdisjoint(document_groups)
