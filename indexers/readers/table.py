"""Rows of a sheet or CSV file to text: each row whole, every value under its column's name."""

import re
from collections.abc import Iterable, Iterator, Sequence

from indexers.canonical import TextBuilder
from indexers.readers.base import Raw

_HEADER_ROWS = 10  # titles and notes may stand above the header
_HEADER_CHARS = 80
_NUMBER = re.compile(r"[\s\d.,:;/%+()€$£¥-]*\d[\s\d.,:;/%+()€$£¥-]*")


def write_rows(rows: Iterable[Sequence[str]], builder: TextBuilder) -> None:
    """Write a row a paragraph as "name: value" lines; rows without a header as "value | value".

    The first row whose cells are distinct words, at least two, is the header; alone it is written as a row.
    """
    header: list[str] = []
    used = False
    for number, row in enumerate(rows):
        values = [" ".join(cell.split()) if cell else "" for cell in row]
        if not any(values):
            continue
        if not header and number < _HEADER_ROWS and _is_header(values):
            header = values
            continue
        if header:
            builder.block("\n".join(_labelled(header, values)))
            used = True
        else:
            builder.block(_joined(values), tight=True)
    if header and not used:
        builder.block(_joined(header), tight=True)


def _joined(values: Sequence[str]) -> str:
    return " | ".join(value for value in values if value)


def _is_header(values: Sequence[str]) -> bool:
    names = [value for value in values if value]
    return (
        len(names) >= 2
        and len(names) >= 0.8 * len(values)
        and len(set(names)) == len(names)
        and not any(len(name) > _HEADER_CHARS or _NUMBER.fullmatch(name) for name in names)
    )


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
