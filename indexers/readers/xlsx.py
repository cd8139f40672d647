"""XLSX: a sheet is a heading, a row a paragraph, each value under its column's name."""

import datetime
import io
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, islice
from xml.etree.ElementTree import ParseError

import openpyxl
from lxml.etree import Error as LxmlError  # type: ignore[import-untyped]
from openpyxl.utils import exceptions
from openpyxl.workbook import Workbook

from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.package import check_package
from indexers.readers.table import CellBudget, write_rows

_OPENPYXL_ERRORS = tuple(
    error for error in vars(exceptions).values() if isinstance(error, type) and issubclass(error, Exception)
)  # they have no common class
ERRORS = (*_OPENPYXL_ERRORS, LxmlError, ParseError, zipfile.BadZipFile)
_MAX_ROWS = 1_048_576  # of a sheet, by the format; one that claims more has its rows up to there
# What a number format shows as it stands: quoted, escaped, as wide as a character, filling; and its conditions.
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[[^\]]*\]')
# openpyxl warns about features it leaves out; silencing that is the whole process's state, so one thread at a time.
_WARNINGS = threading.Lock()


def read_xlsx(raw: Raw) -> Extracts:
    """One document. Charts, comments and formulas that were never calculated have no text here."""
    check_package(raw, streamed="xl/")
    with (
        map_errors(raw, *ERRORS),
        _WARNINGS,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        workbook = openpyxl.load_workbook(io.BytesIO(raw.data), read_only=True, data_only=True, keep_links=False)
        try:
            builder = raw.builder()
            cells = CellBudget(raw)
            for name in workbook.sheetnames:
                rows = cells.counted(_rows(workbook, name))
                first = next((row for row in rows if any(row)), None)
                if first is not None:
                    builder.heading(1, name)
                    write_rows(chain([first], rows), builder)
            if builder.empty:
                raise raw.refuse("no text", "none of its sheets holds a value")
            extract = Extract(builder.text, builder.marks, (workbook.properties.title,))
        finally:
            workbook.close()
    yield extract


def _rows(workbook: Workbook, name: str) -> Iterator[list[str]]:
    sheet = workbook[name]
    if not hasattr(sheet, "iter_rows"):  # a sheet that is one chart
        return
    if hasattr(sheet, "reset_dimensions"):
        sheet.reset_dimensions()  # the stated size may be a billion empty cells, or too small
    for row in islice(sheet.iter_rows(), _MAX_ROWS):
        yield ["" if cell.value is None else _cell(cell.value, cell.number_format) for cell in row]


def _cell(value: object, number_format: str) -> str:
    """A value as the sheet would show it, near enough to be found and quoted."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float | int):
        if "%" in _LITERAL.sub("", number_format):
            return _plain(f"{value * 100:.10g}") + "%"
        is_whole = isinstance(value, int) or (value.is_integer() and abs(value) < 2**53)
        return str(int(value)) if is_whole else _plain(f"{value:.15g}")
    if isinstance(value, datetime.datetime):
        timespec = "seconds" if value.second else "minutes"
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", timespec)
    if isinstance(value, datetime.time):
        return value.isoformat("seconds" if value.second else "minutes")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _plain(digits: str) -> str:
    """A number without its exponent, as people write it and look for it; with more than 20 places as it is."""
    number = Decimal(digits)
    return f"{number:f}" if abs(number.adjusted()) < 20 else digits
