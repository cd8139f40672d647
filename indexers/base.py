"""The values that flow from a file to an index, and the index seam: what searches, what stores, what manages.

IndexerError
├── UnreadableError          a file gave no text; `reason` is one of READ_FAILURES
├── FilterError              a metadata filter we do not understand; names the operator or the value
├── InvalidPointError        a point that the collection cannot hold: dimension, id length, metadata type
├── NamespaceNotFoundError   no such namespace in the index
├── DimensionMismatchError   a vector of another length than the collection's
└── IndexUnavailableError    the engine failed or is closed; retrying may help
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from indexers.filter import Filter

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Scalar = str | float | bool
MetadataValue = Scalar | list[str]
Metadata = Mapping[str, MetadataValue]
Metric = Literal["cosine", "dotproduct", "euclidean"]

READ_FAILURES = ("empty", "encrypted", "corrupt", "no text", "type mismatch", "too large", "unsupported", "not found")


class IndexerError(Exception):
    """Anything reading, chunking or indexing refuses or fails at; the message says what, and the way out."""


class UnreadableError(IndexerError):
    """A source that gives no text. `reason` is one of READ_FAILURES."""

    def __init__(self, source: str, reason: str, detail: str) -> None:
        super().__init__(f"{source!r} cannot be read ({reason}): {detail}")
        self.source, self.reason, self.detail = source, reason, detail


class FilterError(IndexerError):
    pass


class InvalidPointError(IndexerError):
    pass


class NamespaceNotFoundError(IndexerError):
    pass


class DimensionMismatchError(IndexerError):
    pass


class IndexUnavailableError(IndexerError):
    pass


# --- documents and chunks ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a page or a heading begins in the canonical text: offset in code points.

    A page has its number (from 1) in `level` and an optional label in `text`; a heading its level (1 to 6) and words.
    """

    kind: Literal["page", "heading"]
    start: int
    level: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One readable text. `text` is canonical: NFC, LF line ends, no NUL, no lone surrogate."""

    uri: str  # unique within a namespace: a path relative to the ingested folder, an upload's name, "file.jsonl#7"
    title: str
    text: str
    media_type: str
    source_sha256: str  # of the source's bytes (a JSONL line's bytes, where a line is the document)
    extractor: str  # fingerprint of what made the text: "html-2"; another one means: read again
    marks: tuple[Mark, ...] = ()
    metadata: Metadata = field(default_factory=dict)


# What a chunk's id looks like: 88 bits, so that an engine with ids of 128 can carry it and a commit number in one.
CHUNK_ID = re.compile("chk_[0-9a-f]{22}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document: its text is exactly `document.text[start:end]`.

    `context` (title and heading path) goes before the text where it is embedded and where BM25 reads it, never into
    a quote. `token_ids` (int32) are those of context and text together, without special tokens.
    """

    index: int
    start: int
    end: int
    context: str
    page: int | None
    heading_path: tuple[str, ...]
    token_ids: Int32
    token_count: int  # of the chunk's own text


# --- the index -----------------------------------------------------------------------------------------------------


GiveWay = Callable[[], Awaitable[None]]  # awaited before a step of bulk work, so that searches may go first


async def at_once() -> None:
    """Give way to nothing."""


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What every namespace of a collection shares."""

    name: str
    dimension: int
    metric: Metric = "cosine"
    language: str = "english"  # of BM25's stemmer and stopwords; "none" for neither


@dataclass(frozen=True, slots=True)
class Namespace:
    """A tenant's partition of a collection."""

    collection: CollectionSpec
    name: str

    def __str__(self) -> str:
        return f"{self.collection.name}:{self.name}"


@dataclass(frozen=True, slots=True)
class Point:
    """What an index stores under an id (any string of 1 to 512 bytes of UTF-8).

    `text` is what BM25 reads (a chunk's context and text), or None. Numbers in `metadata` are float64.
    `groups`: who may see it; empty means everyone who may read the namespace.
    """

    id: str
    vector: Float32
    text: str | None = None
    metadata: Metadata = field(default_factory=dict)
    document_id: str | None = None
    start: int | None = None
    end: int | None = None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as the index holds it: visible to a snapshot E if born <= E and not (died <= E)."""

    point: Point
    born: int
    died: int | None


class Hit(NamedTuple):
    """One leg's find. Rankings are by score descending, then id ascending."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class View:
    """What a search may see: points alive at commit `snapshot`, readable by `groups` (None: all), matching `filter`."""

    snapshot: int
    groups: frozenset[str] | None = None
    filter: "Filter | None" = None


class SearchesDense(Protocol):
    """The dense leg. Scores: cosine and dotproduct as they are, euclidean as the negated distance."""

    async def search_dense(
        self, namespace: Namespace, vector: Float32, view: View, top_k: int, *, exact: bool = False
    ) -> list[Hit]: ...


class SearchesText(Protocol):
    """The text leg. Scores: BM25 as it is."""

    async def search_text(self, namespace: Namespace, query: str, view: View, top_k: int) -> list[Hit]: ...


class Searches(SearchesDense, SearchesText, Protocol):
    """The two legs."""


class Stores(Protocol):
    """Writes are stamped with the commit they will belong to and stay invisible until the catalog advances to it.

    Every write is idempotent: repeating it with the same commit changes nothing.
    """

    async def put(self, namespace: Namespace, points: Sequence[Point], commit: int) -> None:
        """Store points with born = commit; a live point under the same id, born earlier, gets died = commit."""
        ...

    async def delete(self, namespace: Namespace, ids: Sequence[str], commit: int) -> None:
        """Give the live points under these ids died = commit. Unknown ids are ignored."""
        ...

    async def patch(
        self, namespace: Namespace, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int
    ) -> None:
        """Merge metadata (and replace groups, unless None) in a copy born = commit; the old one gets died = commit."""
        ...

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        """The points under these ids that the view sees, without `text`: an index keeps a text's terms only."""
        ...

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        """A page of points and the cursor of the next (None at the end); with view None every stored version."""
        ...

    async def undo(self, namespace: Namespace, commit: int) -> None:
        """Forget every write stamped later than `commit`: born > commit is removed, died > commit is lifted."""
        ...

    async def sweep(self, namespace: Namespace, horizon: int) -> int:
        """Remove points with died <= horizon for good; returns how many."""
        ...

    async def purge(self, namespace: Namespace, ids: Sequence[str]) -> None:
        """Remove every version of these ids for good."""
        ...


class Manages(Protocol):
    async def create(self, namespace: Namespace) -> None:
        """Make an empty namespace; one that is there already is left as it is."""
        ...

    async def drop(self, namespace: Namespace) -> None: ...

    async def list(self, collection: str) -> list[str]:
        """Names of the namespaces the index holds for a collection, sorted."""
        ...

    async def count(self, namespace: Namespace, view: View | None) -> int: ...

    async def flush(self, namespace: Namespace) -> None:
        """Make every write so far durable."""
        ...

    async def close(self) -> None: ...


class DenseIndex(SearchesDense, Stores, Manages, Protocol):
    """The dense half of an index of two legs."""


class TextIndex(SearchesText, Stores, Manages, Protocol):
    """The text half of an index of two legs."""


class Index(Searches, Stores, Manages, Protocol):
    pass
