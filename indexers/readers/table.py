"""Rows of a table to text: each row whole, every value under its column's name or in its column's place."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice

from indexers.canonical import TextBuilder
from indexers.readers.base import Raw

_HEADER_ROWS = 10  # titles and notes may stand above the header
_HEADER_CHARS = 80
_FULL = 0.8  # of a table's columns: a row that fills them is the header or the first row of data
_EMPTY = "-"  # in the place of a cell without a value, so that those after it stay in their columns
_MAX_EMPTY = 30  # in a row; more are written as one "…": a sheet's last column may be its 16,384th
_NUMBER = re.compile(r"[\s\d.,:;/%+()€$£¥-]*\d[\s\d.,:;/%+()€$£¥-]*")


def write_rows(rows: Iterable[Sequence[str]], builder: TextBuilder) -> None:
    """Write a row a paragraph as "name: value" lines; rows without a header as "value | value".

    The header is the first of the top rows that holds at least two names, and no row after one of data. Alone it is
    written as a row.
    """
    cleaned = ([" ".join(cell.split()) if cell else "" for cell in row] for row in rows)
    head = list(islice(cleaned, _HEADER_ROWS))
    start, width = _extent(head)
    header: list[str] = []
    sought, used, titles = True, False, True  # titles: above the first row with two values
    for number, values in enumerate(chain(head, cleaned)):
        filled = sum(map(bool, values))
        if not filled:
            continue
        if sought and number < _HEADER_ROWS:
            if _is_header(values[start : start + width], width):
                header, sought = _numbered(values), False
                continue
            sought = not _fills(values[start:], width)
        titles = titles and sought and filled == 1
        if header:
            builder.block("\n".join(_labelled(header, values)))
            used = True
        else:
            builder.block("".join(values) if titles else _placed(values, start), tight=True)
    if header and not used:
        builder.block(_placed(header, start), tight=True)


def write_grid(rows: Sequence[Sequence[str]], builder: TextBuilder) -> None:
    """Write a document's table a line a row, "value | value", without the columns that no row fills at its edges."""
    start, _ = _extent(rows)
    builder.gap()
    for row in rows:
        builder.block(_placed(row, start), tight=True)
    builder.gap()


def _extent(rows: Sequence[Sequence[str]]) -> tuple[int, int]:
    """The first column that a row fills, and how many there are from it to the last one filled."""
    filled = [[index for index, cell in enumerate(row) if cell] for row in rows]
    start = min((indices[0] for indices in filled if indices), default=0)
    return start, max((indices[-1] + 1 - start for indices in filled if indices), default=0)


def _placed(values: Sequence[str], start: int) -> str:
    """The row's values in their places; empty cells count up to the last value, from the table's first column on."""
    end = max((index + 1 for index, value in enumerate(values) if value), default=0)
    first = 0 if any(values[:start]) else start
    shown: list[str] = []
    for is_filled, group in groupby(values[first:end], key=bool):
        run = list(group)
        shown += run if is_filled else [_EMPTY] * len(run) if len(run) <= _MAX_EMPTY else ["…"]
    return " | ".join(shown)


def _fills(values: Sequence[str], width: int) -> bool:
    """Whether the row has a value in nearly every column; the first one is empty over the names of rows."""
    return sum(map(bool, values)) >= _FULL * (width if values[0] else width - 1)


def _is_header(values: Sequence[str], width: int) -> bool:
    names = [value for value in values if value]
    return (
        len(set(names)) >= 2
        and len(names) >= _FULL * len(values[0 if values[0] else 1 :])
        and len(names) > 0.5 * (width if values[0] else width - 1)
        and not any(len(name) > _HEADER_CHARS or _NUMBER.fullmatch(name) for name in names)
    )


def _numbered(names: Sequence[str]) -> list[str]:
    """The columns' names, told apart where two are the same: "Phone", "Phone 2"."""
    told: list[str] = []
    taken = set(names)
    counts: Counter[str] = Counter()
    for name in names:
        counts[name] += 1
        unique = name
        if name and counts[name] > 1:
            while (unique := f"{name} {counts[name]}") in taken:
                counts[name] += 1
        told.append(unique)
    return told


def _labelled(header: Sequence[str], values: Sequence[str]) -> list[str]:
    lines = []
    for index, value in enumerate(values):
        name = header[index] if index < len(header) else ""
        if value:
            lines.append(f"{name}: {value}" if name else value)
    return lines


class CellBudget:
    """Refuses a file once its cells are more than the limit; a sheet may claim billions of empty ones."""

    def __init__(self, raw: Raw) -> None:
        self._raw, self._left = raw, raw.limits.max_cells

    def counted(self, rows: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """The same rows. A row and a value count 1, an empty cell an eighth: formatted columns have many."""
        for row in rows:
            self._left -= 1 + len(row) // 8 + sum(map(bool, row))
            if self._left < 0:
                raise self._raw.refuse("too large", f"it has more than {self._raw.limits.max_cells} cells; split it")
            yield row
