"""Cuts documents into chunks of a model's size: on headings, paragraphs, lines, sentences, words, in this order.

The text is tokenised once, in pieces, with offsets; all else is arithmetic over them, and the same ids then go to the
embedder. A chunk's text is exactly a slice of the document's; its title and heading path are its context.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from indexers.base import Chunk, Document, Int32
from indexers.pack import Items, Packer, make_items
from indexers.structure import WORD, Bool, Int8, Int64, Pages, Section, code_points, sections, strengths, visible

_ALGORITHM = "structure-1"  # another way of cutting gets another number, and documents are chunked anew
_PIECE_CHARS = 2_000  # tokenizers is fastest on pieces of about this size
_MIN_TOKENS = 32  # one character can be a dozen tokens in some vocabularies
_CONTEXT_SHARE = 4  # context may take 1/4 of the budget


class TokenisedText(Protocol):
    """ids (n,) int32 without special tokens; offsets (n, 2) int32, code points [start, end)."""

    @property
    def ids(self) -> Int32: ...

    @property
    def offsets(self) -> Int32: ...


class Tokenizer(Protocol):
    """What the chunker asks of the embedder's tokenizer."""

    @property
    def fingerprint(self) -> str: ...

    def encode_batch(self, texts: Sequence[str]) -> Sequence[TokenisedText]: ...


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """`max_tokens`: the model's whole input, special tokens and context included; `overlap`: share repeated, 0 to 0.5.

    Raises ValueError for an overlap outside these bounds.
    """

    max_tokens: int
    overlap: float

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.5:
            raise ValueError(f"overlap={self.overlap!r} is no share of a chunk: give a number from 0 to 0.5.")


@dataclass(frozen=True, slots=True)
class _Context:
    text: str
    ids: Int32


@dataclass(frozen=True, slots=True)
class _Outline:
    """A document before it is tokenised. `contexts[i]`: section i's context at its heading and further on."""

    document: Document
    strengths: Int8
    visible: Bool
    sections: list[Section]
    contexts: list[tuple[str, str]]
    pieces: list[int]  # where each begins, and the end


class Chunker:
    """Cuts documents for one embedder. `fingerprint` names tokenizer, settings and algorithm: what shapes a chunk.

    `special_tokens`: how many of `settings.max_tokens` the model adds itself. Raises ValueError if too few are left.
    """

    def __init__(self, tokenizer: Tokenizer, settings: ChunkSettings, special_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._budget = settings.max_tokens - special_tokens
        if self._budget < _MIN_TOKENS:
            raise ValueError(
                f"max_tokens={settings.max_tokens!r} leaves {self._budget} tokens for a chunk beside {special_tokens} "
                f"special ones: give at least {_MIN_TOKENS + special_tokens}."
            )
        described = f"{_ALGORITHM} {settings.max_tokens} {settings.overlap!r} {special_tokens} {tokenizer.fingerprint}"
        self.fingerprint = hashlib.sha256(described.encode()).hexdigest()

    def chunk(self, document: Document) -> list[Chunk]:
        """The chunks of one document, in its order; none for a text of white space."""
        return self.chunk_batch([document])[0]

    def chunk_batch(self, documents: Sequence[Document]) -> list[list[Chunk]]:
        """The chunks of each document; small documents cost less together, as all are tokenised in one call."""
        outlines = [_outline(document) for document in documents]
        lines = list(dict.fromkeys(line for outline in outlines for pair in outline.contexts for line in pair))
        pieces = [text for outline in outlines for text in _texts(outline)]
        encoded = self._tokenizer.encode_batch([*lines, *pieces])
        contexts = {line: self._context(line, tokens) for line, tokens in zip(lines, encoded, strict=False)}
        chunked, at = [], len(lines)
        for outline in outlines:
            count = len(outline.pieces) - 1
            chunked.append(self._cut(outline, contexts, encoded[at : at + count]))
            at += count
        return chunked

    def _context(self, line: str, tokens: TokenisedText) -> _Context:
        """The context as it is, or its first words if it would take more than its share."""
        most = self._budget // _CONTEXT_SHARE
        if len(tokens.ids) <= most:
            return _Context(line, tokens.ids)
        ends = tokens.offsets[:, 1]
        cut = int(ends[most - 1])
        if not line[cut : cut + 1].isspace():
            cut = max(line.rfind(" ", 0, cut), 0) or cut
        return _Context(f"{line[:cut].rstrip()}\n", tokens.ids[:most][ends[:most] <= cut])

    def _cut(self, outline: _Outline, contexts: dict[str, _Context], pieces: Sequence[TokenisedText]) -> list[Chunk]:
        if not pieces:
            return []
        text = outline.document.text
        ids = np.concatenate([piece.ids for piece in pieces])
        offsets: Int64 = np.concatenate(
            [piece.offsets + np.int64(start) for piece, start in zip(pieces, outline.pieces, strict=False)]
        )
        items = make_items(outline.strengths, outline.visible, offsets, self._budget - self._budget // _CONTEXT_SHARE)
        packer = self._packer(outline, items, contexts)
        pages, chunks, until = Pages(outline.document.marks), list[Chunk](), 0
        for span in packer.spans():
            start, end = _trimmed(text, int(items.starts[span.first]), int(items.starts[span.last]))
            if end <= until:  # all that is new is white space
                continue
            until = end
            context = contexts[outline.contexts[span.section][not span.at_heading]]
            own = ids[items.tokens[span.first] : items.tokens[span.last]]
            chunks.append(
                Chunk(
                    index=len(chunks),
                    start=start,
                    end=end,
                    context=context.text,
                    page=pages.at(start),
                    heading_path=_shared_path(outline.sections[span.section : packer.section_of(span.last - 1) + 1]),
                    token_ids=np.concatenate((context.ids, own)),
                    token_count=len(own),
                )
            )
        return chunks

    def _packer(self, outline: _Outline, items: Items, contexts: dict[str, _Context]) -> Packer:
        found = outline.sections
        heads = np.searchsorted(items.starts[:-1], [section.start for section in found]).tolist()
        return Packer(
            items,
            [(head, section.level) for head, section in zip(heads, found, strict=True)],
            lambda section, at_heading: self._budget - len(contexts[outline.contexts[section][not at_heading]].ids),
            self._settings.overlap,
        )


def _outline(document: Document) -> _Outline:
    text, found = document.text, sections(document.marks)
    codes = code_points(text)
    marked = strengths(text, codes, [section.start for section in found[1:]])
    lines = [_context_lines(document, section) for section in found]
    return _Outline(document, marked, visible(codes), found, lines, _pieces(marked))


def _pieces(marked: Int8) -> list[int]:
    """Where to cut the text for the tokenizer: between words, and inside of one only if it is as long as a piece."""
    words = np.flatnonzero(marked >= WORD)
    if not len(words):
        return [0]
    bounds = [0]
    while bounds[-1] + _PIECE_CHARS < len(marked):
        at = bounds[-1] + _PIECE_CHARS
        word = int(np.searchsorted(words, at))
        following = int(words[word]) if word < len(words) else len(marked)
        bounds.append(min(following, at + _PIECE_CHARS))
    return [*bounds, len(marked)] if bounds[-1] < len(marked) else bounds


def _texts(outline: _Outline) -> Iterator[str]:
    for start, end in zip(outline.pieces, outline.pieces[1:], strict=False):
        yield outline.document.text[start:end]


def _context_lines(document: Document, section: Section) -> tuple[str, str]:
    """Title and heading path, for a chunk that begins at the section's heading and for one that begins further on.

    The first leaves out the heading itself where the text shows it.
    """
    title, path = " ".join(document.title.split()), section.path
    whole = _joined((title, *path))
    if not path:
        return whole, whole
    shown = " ".join(document.text[section.start : section.start + 2 * len(path[-1]) + 16].split())
    if path[-1] not in shown:
        return whole, whole
    if title.casefold() == path[-1].casefold():
        title = ""
    return _joined((title, *path[:-1])), whole


def _joined(parts: Sequence[str]) -> str:
    """ "A > B > C" and a line end; a part that repeats the one before it is left out; nothing for nothing."""
    kept: list[str] = []
    for part in parts:
        if part and not (kept and part.casefold() == kept[-1].casefold()):
            kept.append(part)
    return " > ".join(kept) + "\n" if kept else ""


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space at its ends."""
    kept = text[start:end].lstrip()
    return end - len(kept), end - len(kept) + len(kept.rstrip())


def _shared_path(covered: Sequence[Section]) -> tuple[str, ...]:
    """The headings above everything in a chunk."""
    first, last = covered[0].path, [section.path for section in covered[1:]]
    depth = len(first)
    for path in last:
        while path[:depth] != first[:depth]:
            depth -= 1
    return first[:depth]
