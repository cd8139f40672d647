"""Canonical text (NFC, LF line ends, no NUL, no soft hyphen), and the builder that keeps marks exact in it."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np

from indexers.base import Mark

# Normalisation sorts each run of combining marks and takes the square of its length: 80,000 marks on one letter take
# 13 s. Runs are cut at 30, the limit of the Stream-Safe Text Format (Unicode Standard Annex 15, section 13).
_MAX_COMBINING = 30
_IS_COMBINING = np.array([unicodedata.combining(chr(c)) != 0 for c in range(0x1F000)])  # the last one is U+1E94A
# Between letters of these scripts it only allows a line to break; between Thai or Khmer ones it parts words.
_LETTER = "[A-Za-z\u00c0-\u02af\u0370-\u0482\u048a-\u0523\u1e00-\u1fff]"  # none that composes with one before it
_ZERO_WIDTH_SPACE = re.compile(f"(?<={_LETTER})\u200b+(?={_LETTER})")
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical(text: str) -> str:
    """The canonical form of any string; applying it twice changes nothing.

    CR LF and CR become LF, NUL and what hides a word from search disappear (soft hyphens, zero width spaces between
    Latin, Greek or Cyrillic letters), a surrogate pair becomes its character and a lone surrogate U+FFFD, marks
    beyond the thirtieth on one letter are dropped, and the rest is NFC.
    """
    text = text.replace("\0", "").replace("\u00ad", "")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = _without_long_runs(unicodedata.normalize("NFC", _without_long_runs(text)))  # U+0344 becomes two marks
    return _ZERO_WIDTH_SPACE.sub("", text) if "\u200b" in text else text


def _without_long_runs(text: str) -> str:
    if len(text) <= _MAX_COMBINING:
        return text
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    combining = _IS_COMBINING[np.minimum(codes, len(_IS_COMBINING) - 1)]
    if np.count_nonzero(combining) <= _MAX_COMBINING:
        return text
    # A mark's place in its run, from 1; 0 for any other character.
    positions = np.arange(len(codes), dtype=np.int32)
    place = positions - np.maximum.accumulate(np.where(combining, np.int32(-1), positions))
    if np.max(place) <= _MAX_COMBINING:
        return text
    return codes[place <= _MAX_COMBINING].tobytes().decode("utf-32-le")


class TooLongError(Exception):
    """The text grew beyond what its reader may keep."""


class TextBuilder:
    """Grows a canonical text block by block, with its marks.

    Blocks are canonicalised one by one and parted by line feeds. Nothing composes with a line feed, so the joined text
    is NFC as well, and an offset taken while building is an offset of the final text.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._pieces: list[str] = []
        self._marks: list[Mark] = []
        self._pending: dict[Literal["page", "heading"], tuple[int, str]] = {}
        self._length = 0
        self._tight = False  # whether the last block may be followed closely

    @property
    def empty(self) -> bool:
        return not self._pieces

    @property
    def marks(self) -> tuple[Mark, ...]:
        return tuple(self._marks)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def block(self, text: str, *, tight: bool = False, strip: bool = True) -> None:
        """Append a paragraph; a `tight` one (list item, row) follows another tight one on the next line."""
        text = canonical(text)
        text = text.strip() if strip else text.strip("\n").rstrip()
        if not text:
            return
        if self._pieces:
            self._put("\n" if tight and self._tight else "\n\n")
        for kind, (level, words) in self._pending.items():
            self._marks.append(Mark(kind, self._length, level, words))
        self._pending.clear()
        self._put(text)
        self._tight = tight

    def gap(self) -> None:
        """Part the next block from the last by a blank line, even if both are tight: another list, another table."""
        self._tight = False

    def heading(self, level: int, text: str) -> None:
        """Append a heading of level 1 to 6 as a paragraph of its own, marked where it begins."""
        words = " ".join(canonical(text).split())
        if words:
            self._pending["heading"] = (min(max(level, 1), 6), words)
            self.block(words)

    def page(self, number: int, label: str = "") -> None:
        """The next block begins this page. A page without text leaves no mark."""
        self._pending["page"] = (number, " ".join(canonical(label).split()))

    def append(self, text: str, marks: Iterable[Mark], below: int = 0) -> None:
        """Append what another builder made, its marks moved along and its headings down by `below` levels."""
        moved = len(text.lstrip()) - len(text)
        self.gap()
        self.block(text)
        moved += self._length - len(text.strip())
        for mark in marks:
            level = min(mark.level + below, 6) if mark.kind == "heading" else mark.level
            self._marks.append(replace(mark, start=max(mark.start + moved, 0), level=level))

    def _put(self, text: str) -> None:
        self._length += len(text)
        if self._length > self._max_chars:
            raise TooLongError(f"its text is longer than {self._max_chars} characters")
        self._pieces.append(text)
