"""CSV and TSV: rows as paragraphs, each value under its column's name, whatever the delimiter."""

import csv
import io
import re
from collections import Counter
from itertools import islice

from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.encoding import decode
from indexers.readers.table import CellBudget, write_rows
from indexers.readers.text import replaced

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 1 << 16
_SAMPLE_ROWS = 50
_PARTING_COMMA = re.compile(r"(?<!\d),|,(?!\d)")

# The parser's limit for one field, 128 KiB by default, is the whole process's to set: a file's size is bounded already.
csv.field_size_limit(2**31 - 1)


def read_csv(raw: Raw) -> Extracts:
    """One document; the delimiter is the one that cuts the first rows most evenly (or what "sep=" names)."""
    decoded = decode(raw)
    yield from replaced(raw, decoded)
    text = decoded.text.replace("\0", "").lstrip("\ufeff")
    with map_errors(raw, csv.Error):
        first_line, _, rest = text[:100].partition("\n")
        if first_line.strip().lower().startswith("sep=") and len(first_line.strip()) == 5:
            delimiter, text = first_line.strip()[4], text[len(text[:100]) - len(rest) :]
        else:
            delimiter = _delimiter(text, raw.uri)
        builder = raw.builder()
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        write_rows(CellBudget(raw).counted(rows), builder)
        if builder.empty:
            raise raw.refuse("empty", "none of its cells holds anything")
        yield Extract(builder.text, builder.marks)


def _delimiter(text: str, uri: str) -> str:
    """The delimiter under which most of the first rows have the same number of columns, more than one.

    A comma that stands between digits alone may be the decimal one: any other that cuts as evenly goes before it.
    """
    sample = text[:_SAMPLE_CHARS]
    if len(text) > _SAMPLE_CHARS:
        sample = sample[: sample.rfind("\n") + 1] or sample

    def evenness(delimiter: str) -> tuple[float, int]:
        widths: Counter[int] = Counter()
        parsed = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        for row in islice(parsed, _SAMPLE_ROWS):
            if any(row):
                widths[len(row)] += 1
        if not widths:
            return 0.0, 0
        width, rows = widths.most_common(1)[0]
        return (rows / widths.total(), width) if width > 1 else (0.0, 1)

    order = "\t,;|" if uri.lower().endswith((".tsv", ".tab")) else _DELIMITERS
    best = max(order, key=evenness)  # the first of equals
    if best == "," and not _PARTING_COMMA.search(sample):
        other = max(order.replace(",", ""), key=evenness)
        if evenness(other)[0] >= evenness(best)[0] > 0:
            return other
    return best
