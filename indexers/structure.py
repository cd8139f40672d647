"""Where a text may be cut, and how gladly: paragraphs, lines, sentences, words; and which section and page it is in.

A text and its marks enter; a strength for each position, the sections and the pages leave. The packer chooses.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.base import Mark

Bool = NDArray[np.bool_]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
UInt32 = NDArray[np.uint32]

NONE, TOKEN, WORD, SENTENCE, LINE, PARAGRAPH = range(6)

# A line is hard-wrapped, and its end no boundary of its own, if the line before it has this many words and the next
# one goes on in lower case.
_WRAPPED_WORDS = 4
_SPACES = np.array([c for c in range(0x3001) if chr(c).isspace()], dtype=np.uint32)
_IS_SPACE = np.zeros(0x3002, dtype=np.bool_)
_IS_SPACE[_SPACES] = True

_CLOSERS = "\"'”’»)\\]」』）】"
_STOPS = np.array([ord(c) for c in ".!?…؟۔।。！？"], dtype=np.uint32)
_FULL_STOP = re.compile(
    rf"[.!?…؟۔।。！？]*[。！？][{_CLOSERS}]*+\s*+(?=\S)"
    rf"|(?P<stop>[.!?…؟۔।。！？]++)[{_CLOSERS}]*+\s++(?=[^\Wa-z]|[\"'“‘«(\[])"
)
_LOOKBACK = 12  # longer than any abbreviation
_ABBREVIATED = (
    "mr mrs ms dr prof st gen col sgt gov sen rep vs cf e.g i.e viz ca al approx fig figs eq eqs ref refs no nos sec "
    "ch art vol vols p pp ed eds inc ltd co corp jr sr dept est jan feb mar apr jun jul aug sep sept oct nov dec"
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())


@dataclass(frozen=True, slots=True)
class Section:
    """The text from a heading to the next: `path` holds the headings above it and its own; level 0: before any."""

    start: int
    level: int
    path: tuple[str, ...]


def code_points(text: str) -> UInt32:
    """The text as (n,) uint32 code points, so that offsets are indices."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def visible(codes: UInt32) -> Bool:
    """For each character (n,) whether it is anything but white space."""
    return ~_IS_SPACE[np.minimum(codes, 0x3001)]


def strengths(text: str, codes: UInt32, headings: Sequence[int]) -> Int8:
    """For each character (n,) int8 how gladly the text is cut before it: NONE < TOKEN < WORD < … < PARAGRAPH.

    Only visible characters are cut before; the first is one of them. `headings` are offsets, moved forward to the next
    visible character; each begins a paragraph.
    """
    found = np.full(len(codes), NONE, dtype=np.int8)
    edge = np.diff(visible(codes).view(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    if not len(starts):
        return found
    found[starts] = _word_strengths(text, codes, starts, ends)
    for at in sentence_starts(text, codes):
        found[at] = max(found[at], SENTENCE)
    for heading in headings:
        run = int(np.searchsorted(ends, heading, side="right"))
        if run < len(starts):
            found[max(heading, starts[run])] = PARAGRAPH
    return found


def _word_strengths(text: str, codes: UInt32, starts: Int64, ends: Int64) -> Int8:
    """Strength of the beginning of each run of visible characters, by the line ends before it."""
    newlines = np.concatenate(([0], np.cumsum(codes == 10)))
    gaps = newlines[starts] - newlines[np.concatenate(([0], ends[:-1]))]
    found = np.full(len(starts), WORD, dtype=np.int8)
    found[gaps == 1] = LINE
    found[gaps > 1] = PARAGRAPH
    found[0] = PARAGRAPH
    begins = np.flatnonzero(found >= LINE)
    words = np.diff(begins)  # of the line before each line but the first
    for i in begins[1:][(found[begins[1:]] == LINE) & (words >= _WRAPPED_WORDS)].tolist():
        last = text[ends[i - 1] - 1]
        if text[starts[i]].islower() and (last.isalpha() or last in ",;-–—"):
            found[i] = WORD
    return found


def sentence_starts(text: str, codes: UInt32) -> Iterator[int]:
    """Offsets where a sentence begins after another's end; abbreviations and initials end none."""
    stops = np.isin(codes, _STOPS)
    for at in np.flatnonzero(stops & ~np.concatenate(([False], stops[:-1]))).tolist():
        match = _FULL_STOP.match(text, at)
        if match is None:
            continue
        if match.group("stop") == ".":
            words = text[max(0, at - _LOOKBACK) : at].split()
            last = words[-1].lstrip("([\"'“") if words else ""
            if last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper()):
                continue
        yield match.end()


def sections(marks: Sequence[Mark]) -> list[Section]:
    """The sections that heading marks open, in the order of the text; the first begins at 0 and may have no path."""
    found = [Section(0, 0, ())]
    stack: list[Mark] = []
    for mark in sorted((m for m in marks if m.kind == "heading"), key=lambda m: m.start):
        while stack and stack[-1].level >= mark.level:
            stack.pop()
        stack.append(mark)
        found.append(Section(mark.start, mark.level, tuple(" ".join(m.text.split()) for m in stack)))
    return found


class Pages:
    """The page that an offset lies on, by the page marks."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        pages = sorted((m.start, m.level) for m in marks if m.kind == "page")
        self._starts = [start for start, _ in pages]
        self._numbers = [number for _, number in pages]

    def at(self, offset: int) -> int | None:
        """The page number at an offset in code points; None before the first mark and where there are no pages."""
        i = bisect_right(self._starts, offset) - 1
        return self._numbers[i] if i >= 0 else None
