"""Printed lines to text: running heads dropped, wrapped lines joined into paragraphs, headings told by type size."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from indexers.canonical import TextBuilder
from indexers.readers.printed import Line, Page


@dataclass(frozen=True, slots=True)
class _Style:
    """The document's body type, and which larger sizes it uses for headings, largest first."""

    size: float
    bold: bool
    heading_sizes: tuple[float, ...]


_MARGIN = 0.12  # of the page's height, above and below, where running heads are looked for
_SAME_PLACE = 2.0  # points between the heights at which two pages have a running head
_HEADING_SIZE = 1.07  # times the body's: 12 points over 11
_HEADING_CHARS = 160
_HEADING_SHARE = 0.2  # of the document's characters: type used more than that is no heading's
_BULLET = re.compile(r"(?:[•▪■●○◦‣⁃∙·–—*-]|\(?(?:\d{1,2}|[a-z])[.)])\s")
_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,5})\.?\s+\S*[^\W\d_]{2}")
_LEADER = re.compile(r"(?:\.\s?){4,}")  # a line of a table of contents
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")
_WORD_BREAK = re.compile("(\\w+)\ufffe(\\w+)")


def write_pages(pages: Sequence[Page], builder: TextBuilder) -> None:
    """Write the pages' paragraphs and headings, in the order the lines come in."""
    pages = _without_running_heads(pages)
    paragraphs = [(page.number, _paragraphs(page.lines)) for page in pages]
    style = _style(line for page in pages for line in page.lines)
    words = Counter(word for page in pages for line in page.lines for word in re.findall(r"[\w-]+", line.text))
    for number, groups in paragraphs:
        builder.page(number)
        previous: list[Line] | None = None
        for group in groups:
            text = _join(group, words)
            if (level := _heading_level(group, text, style)) is not None:
                builder.heading(level, text)
            else:
                if previous is None or not _adjacent(previous[-1], group[0]):
                    builder.gap()
                builder.block(text, tight=len(group) == 1)
            previous = group


def _without_running_heads(pages: Sequence[Page]) -> list[Page]:
    """Drop what stands at one place in the margin of most pages, and once on each; the first that has it keeps it."""
    if len(pages) < 4:
        return list(pages)
    places: defaultdict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for at, page in enumerate(pages):
        keys = [_keys(line, page.number) for line in page.lines]
        counts = Counter(key for some in keys for key in some)
        for index, line in enumerate(page.lines):
            is_head = line.bottom > page.height * (1 - _MARGIN)
            if line.size and line.quarter == 0 and (is_head or line.top < page.height * _MARGIN):
                place = line.bottom - page.height if is_head else line.bottom
                for key in keys[index]:
                    if counts[key] == 1:  # twice on a page: rows of a table
                        places[key].append((place, at, index))
    running: set[tuple[int, int]] = set()
    for found in places.values():
        for group in _together(sorted(found)):
            if len(group) > len(pages) / 2:
                running |= set(sorted((at, index) for _, at, index in group)[1:])
    return [
        Page(page.number, page.height, tuple(x for i, x in enumerate(page.lines) if (at, i) not in running))
        for at, page in enumerate(pages)
    ]


def _keys(line: Line, page: int) -> set[str]:
    """What a line has in common with those of other pages that say the same but for the page's number.

    Beside words the numbers are left out; of a line of numbers only the first may rise with the page.
    """
    if any(c.isalpha() for c in line.text):
        return {re.sub(r"\d+", "#", line.text)}
    rising = re.sub(r"\d{1,9}", lambda match: f"#{int(match[0]) - page}", line.text, count=1)
    return {line.text, rising}


def _together(found: Sequence[tuple[float, int, int]]) -> list[list[tuple[float, int, int]]]:
    """Sorted places in groups without a gap; in one of them a page comes once, as its key does on the page."""
    groups: list[list[tuple[float, int, int]]] = []
    for place in found:
        if groups and place[0] - groups[-1][-1][0] <= _SAME_PLACE:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _paragraphs(lines: Sequence[Line]) -> list[list[Line]]:
    """Group lines that printing wrapped: same type, next to each other, the upper one full."""
    pairs = [(a, b) for a, b in pairwise(lines) if _adjacent(a, b)]
    leading = median(a.bottom - b.bottom for a, b in pairs) if pairs else 0.0
    size = median(a.size for a, _ in pairs) if pairs else 1.0
    groups: list[list[Line]] = []
    for line, edge in zip(lines, _right_edges(lines), strict=True):
        if groups and _continues(groups[-1], line, edge, leading, line.size / size):
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _right_edges(lines: Sequence[Line]) -> list[float]:
    """For each line how far right the lines of its column reach: the run of adjacent lines it stands in."""
    edges: list[float] = []
    start = 0
    for i in range(1, len(lines) + 1):
        if i == len(lines) or not _adjacent(lines[i - 1], lines[i]):
            edges += [max(line.right for line in lines[start:i])] * (i - start)
            start = i
    return edges


def _adjacent(a: Line, b: Line) -> bool:
    """Whether b is printed right below a, in the same type."""
    if not (a.size and b.size) or a.quarter != b.quarter:
        return False
    step = a.bottom - b.bottom
    same_type = abs(a.size - b.size) <= 0.1 * max(a.size, b.size)
    return same_type and 0.4 * a.size < step < 2.2 * a.size and a.left < b.right and b.left < a.right


def _continues(group: list[Line], line: Line, edge: float, leading: float, scale: float) -> bool:
    """`scale`: the line's size over that of most lines, whose `leading` is: a wrapped heading's lines stand further
    apart, and begin at one place."""
    last = group[-1]
    if last.hyphenated:
        return True
    if (
        not (last.size and line.size)
        or last.sparse
        or line.sparse
        or _BULLET.match(line.text)
        or _LEADER.search(last.text)
    ):
        return False
    if not _adjacent(last, line):  # the next column: only in the midst of a sentence
        same_type = last.quarter == line.quarter and abs(last.size - line.size) <= 0.05 * last.size
        hop = line.bottom > last.bottom and line.left > last.left
        return same_type and hop and line.text[0].islower() and not _SENTENCE_END.search(last.text)
    if last.bottom - line.bottom > 1.25 * leading * max(1.0, scale) or (
        last.bold != line.bold and abs(last.size - line.size) > 0.1
    ):
        return False
    indent = line.left - last.left
    if (len(group) > 1 or scale > _HEADING_SIZE) and abs(indent) > 0.5 * line.size and not line.text[0].islower():
        return False  # a first line set in, the next entry of a hanging list, or of a title page
    if line.text[0].islower() and not _SENTENCE_END.search(last.text):
        return True  # in the midst of a sentence, however ragged the edge
    first_word = line.text.split(" ", 1)[0]
    character = (line.right - line.left) / len(line.text)
    return last.right + (len(first_word) + 1) * character >= edge - 0.1 * line.size


def _join(group: list[Line], words: Counter[str]) -> str:
    """The paragraph's text: a hyphen of line breaking goes, unless the document has the word with it elsewhere."""
    text = group[0].text
    for last, line in pairwise(group):
        text += ("\ufffe" if last.hyphenated else " ") + line.text
    if group[-1].hyphenated:
        text += "-"

    def mend(match: re.Match[str]) -> str:
        with_hyphen, without = f"{match[1]}-{match[2]}", match[1] + match[2]
        keep = words[with_hyphen] > words[without] or not match[2][0].islower() or match[1][-1].isdigit()
        return with_hyphen if keep else without

    return _WORD_BREAK.sub(mend, text).replace("\ufffe", "-")


def _style(lines: Iterable[Line]) -> _Style:
    known = [line for line in lines if line.size]
    sizes: Counter[tuple[float, bool]] = Counter()
    for line in known:
        sizes[line.size, line.bold] += len(line.text)
    if not sizes:
        return _Style(0.0, False, ())
    (size, bold), _ = max(sizes.items(), key=lambda item: (item[1], item[0]))
    shares = Counter[float]()
    for (some, _), count in sizes.items():
        shares[some] += count
    limit = _HEADING_SHARE * shares.total()
    larger = [some for some, count in shares.items() if some >= size * _HEADING_SIZE and count <= limit]
    return _Style(size, bold, tuple(sorted(larger, reverse=True)))


def _heading_level(group: list[Line], text: str, style: _Style) -> int | None:
    """A short group set larger than the body, or bold and numbered; its numbers tell the level, else its size."""
    line = group[0]
    if not line.size or len(text) > _HEADING_CHARS or sum(c.isalpha() for c in text) < 2 or text.endswith((".", ",")):
        return None
    if _LEADER.search(text) or line.sparse:
        return None
    numbered = _NUMBERED.match(text)
    if line.size in style.heading_sizes:
        rank = style.heading_sizes.index(line.size) + 1
        return min(numbered[1].count(".") + 1 if numbered else rank, 6)
    if numbered and line.bold and not style.bold and line.size >= 0.95 * style.size:
        return min(numbered[1].count(".") + 1, 6)
    return None
