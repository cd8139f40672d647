"""EPUB: the documents of the book in reading order, each read as HTML, in one text with their headings."""

import io
import re
import zipfile

from lxml.etree import Error as LxmlError  # type: ignore[import-untyped]

from indexers.base import UnreadableError
from indexers.readers.base import Extract, Extracts, Raw, map_errors, one_report
from indexers.readers.html import VOID, read_html
from indexers.readers.opf import member, read_book
from indexers.readers.package import check_sizes

ERRORS = (LxmlError, zipfile.BadZipFile, RuntimeError)
# <title/> ends at once in XHTML; in HTML it opens, and takes what follows with it. 999: what is tried is remembered.
_SELF_CLOSED = re.compile(rb"<([A-Za-z][\w:.-]*+)((?:[^<>\"'/]++|\"[^\"]*+\"|'[^']*+'|/(?!>)){0,999})/>")


def read_epub(raw: Raw) -> Extracts:
    """One document, with its authors as metadata; documents of the book that cannot be read are reported beside it."""
    with map_errors(raw, *ERRORS), zipfile.ZipFile(io.BytesIO(raw.data)) as package:
        check_sizes(raw, package)
        book = read_book(raw, package)
        builder = raw.builder()
        failures: list[UnreadableError] = []
        for name in book.documents:
            try:
                with map_errors(raw, *ERRORS):
                    page = Raw(_SELF_CLOSED.sub(_closed, member(raw, package, name)), raw.uri, raw.limits)
                    items = list(read_html(page))
            except UnreadableError as failure:
                items = [failure]
            for item in items:
                if isinstance(item, Extract):
                    builder.append(item.text, item.marks)
                elif item.reason != "no text":  # of pictures alone
                    failures.append(raw.refuse(item.reason, f"its document {name!r}: {item.detail}"))
        if failures:
            yield one_report(raw, failures)
        elif builder.empty:
            raise raw.refuse("no text", "none of its documents holds text")
        if not builder.empty:
            first = next((mark.text for mark in builder.marks), None)
            metadata = {"authors": list(book.authors)} if book.authors else {}
            yield Extract(builder.text, builder.marks, (book.title, first), metadata)


def _closed(tag: re.Match[bytes]) -> bytes:
    name = tag[1]
    return tag[0] if name.decode("ascii", "replace").lower() in VOID else b"<" + name + tag[2] + b"></" + name + b">"
