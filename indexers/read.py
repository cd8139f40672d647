"""Files to documents: a folder's sources in order, and the canonical text of each with its page and heading marks.

Whatever a file holds, `read` returns documents and failures, or raises UnreadableError; never a parser's own exception.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from indexers.base import Document, UnreadableError
from indexers.canonical import canonical
from indexers.readers import formats
from indexers.readers.base import Extract, Limits, Raw
from indexers.readers.by_format import reader
from indexers.sources import Source, sources

__all__ = ["ReadResult", "Source", "canonical", "extractor", "read", "sources"]

# What programs put into a document's title when its author did not.
_NO_TITLE = re.compile(
    r"(\((?:anonymous|unspecified)\)|untitled(?: document)?|unbenannt|"
    r"sans titre|document|dokument|presentation|präsentation|powerpoint[ -]pr[aä]sentation|"
    r"powerpoint presentation|title|slide|folie|word document|mappe|book|workbook)[ -]*\d*",
    re.IGNORECASE,
)
_PRINTED_BY = re.compile(r"^Microsoft (?:Word|Excel|PowerPoint|Office \w+) - ", re.IGNORECASE)
_FILE_NAME = re.compile(r"\S+\.(?:docx?|pptx?|xlsx?|pdf|odt|rtf|te?xt?|html?|indd|qxd|pages|dvi|ps)", re.IGNORECASE)
_MAX_TITLE_CHARS = 300


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a source gave: its documents, and beside them what could not be read of it (a line, some bytes)."""

    documents: tuple[Document, ...]
    failures: tuple[UnreadableError, ...] = ()
    parts: Mapping[str, bytes] = field(default_factory=dict)  # uri → its own bytes, where a source holds several


def read(data: bytes, uri: str, *, media_type: str | None = None, max_bytes: int) -> ReadResult:
    """Read a source's bytes. A JSONL file gives a document a line ("file.jsonl#7"), every other format one.

    `uri` is a relative posix path or an upload's name; its ending counts where the bytes do not tell the format,
    then `media_type`. Raises UnreadableError if nothing of it can be read.
    """
    if len(data) > max_bytes:
        raise UnreadableError(uri, "too large", f"it has {len(data)} bytes, the limit is {max_bytes}; split it")
    format = formats.find_format(data, uri, media_type)
    charset = re.search(r";\s*charset\s*=\s*\"?([\w.:-]+)", media_type or "", re.IGNORECASE)
    raw = Raw(data, uri, Limits(max_bytes), charset[1] if charset else None)
    documents: list[Document] = []
    failures: list[UnreadableError] = []
    parts: dict[str, bytes] = {}
    for item in reader(format)(raw):
        if isinstance(item, UnreadableError):
            failures.append(item)
        else:
            documents.append(_document(item, raw, format))
            if item.part is not None:
                parts[documents[-1].uri] = item.part
    if not documents:
        raise failures[0] if failures else UnreadableError(uri, "no text", "it holds no text")
    return ReadResult(tuple(documents), tuple(failures), parts)


def extractor(data: bytes, uri: str, *, media_type: str | None = None) -> str:
    """The fingerprint that `read` would put into Document.extractor, without reading. Raises like find_format."""
    return formats.find_format(data, uri, media_type).extractor


def is_current(fingerprint: str) -> bool:
    """Whether a reader of this fingerprint is the one that reads its format now."""
    return fingerprint in formats.extractors()


def _document(extract: Extract, raw: Raw, format: formats.Format) -> Document:
    return Document(
        uri=raw.uri + extract.fragment,
        title=next(filter(None, map(_title, extract.titles)), "") or _stem(raw.uri) + extract.fragment,
        text=extract.text,
        media_type=format.media_type,
        source_sha256=hashlib.sha256(raw.data if extract.part is None else extract.part).hexdigest(),
        extractor=format.extractor,
        marks=extract.marks,
        metadata=extract.metadata,
    )


def _title(title: str | None) -> str:
    """The title if it says something about the document, else nothing."""
    title = _PRINTED_BY.sub("", " ".join(canonical(title or "").split()))
    if not any(c.isalnum() for c in title) or _NO_TITLE.fullmatch(title) or _FILE_NAME.fullmatch(title):
        return ""
    return title[:_MAX_TITLE_CHARS]


def _stem(uri: str) -> str:
    path = PurePosixPath(uri)
    return " ".join(canonical(path.stem or path.name or uri).split()) or uri
