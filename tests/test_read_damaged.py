"""Damaged and hostile files: whatever the bytes, reading gives documents or UnreadableError, soon and within bounds."""

import email.errors
import inspect
import io
import time
import zipfile
from collections.abc import Callable

import docx.exceptions
import docx.image.exceptions
import docx.opc.exceptions
import lxml.etree
import openpyxl.utils.exceptions
import pptx.exc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexers.base import READ_FAILURES, Document, UnreadableError
from indexers.canonical import canonical
from indexers.read import read
from indexers.readers import docx as docx_reader
from indexers.readers import eml as eml_reader
from indexers.readers import epub as epub_reader
from indexers.readers import pptx as pptx_reader
from indexers.readers import xlsx as xlsx_reader
from indexers.readers.base import Limits, Raw, map_errors
from tests import make_files

MIB = 2**20
FILES = {
    "a.pdf": make_files.pdf("Title", [[("Heading", ["Some words of a paragraph."])]] * 2),
    "a.docx": make_files.word("Title", [("Heading", ["Words."])], [["a", "b"]]),
    "a.pptx": make_files.slides([("Title", "Body", "Notes")]),
    "a.xlsx": make_files.workbook({"Sheet": [["Name", "No"], ["x", 1]]}),
    "a.html": b"<title>T</title><h1>H</h1><table><tr><td>a<td>b</table><p>x<ul><li>y<pre>z</pre>",
    "a.md": "---\ntitle: x\n---\n# Überschrift\n\ntext\n".encode(),
    "a.txt": "Zoë, 概要 🦆".encode(),
    "a.csv": b'a,b\n"x\ny",2\n',
    "a.json": b'{"a": {"b": [1, 2.5, null, "x"]}}',
    "a.jsonl": b'{"id": 1, "text": "x"}\n{"text": "y", "metadata": {"a": [1]}}\n',
    "a.eml": make_files.mail("Héad", "Words", html="<p>Words", attachments=[("a.csv", "text/csv", b"a,b\n1,2\n")]),
    "a.epub": make_files.epub("<dc:title>Book</dc:title>", {"a.xhtml": "<h1>One</h1>", "b.xhtml": "<p>Two</p>"}),
}


def read_or_refuse(data: bytes, uri: str) -> str | None:
    """The reason of the refusal, None if there are documents; anything else fails the test."""
    try:
        result = read(data, uri, max_bytes=8 * MIB)
    except UnreadableError as failure:
        reason = failure.reason
    else:
        assert result.documents
        assert not any(out_of_place(document) for document in result.documents)
        return None
    assert reason in READ_FAILURES
    return reason


def out_of_place(document: Document) -> bool:
    text = document.text
    return canonical(text) != text or any(not 0 <= mark.start < len(text) for mark in document.marks)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_damage_gives_text_or_a_reason(uri: str, data: st.DataObject) -> None:
    content = bytearray(FILES[uri])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.none() | st.integers(0, len(content)))
    read_or_refuse(bytes(content[:end]), uri)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["a.docx", "a.pptx", "a.xlsx", "a.epub"]), st.data())
def test_any_damage_inside_a_package_gives_text_or_a_reason(uri: str, data: st.DataObject) -> None:
    """Damage that the ZIP checksums do not see: members cut, emptied, changed or taken out."""
    members = unpack(FILES[uri])
    name = data.draw(st.sampled_from([n for n in sorted(members) if n.endswith((".xml", ".rels", ".opf", ".xhtml"))]))
    content = bytearray(members[name])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.sampled_from(b"<>/\"'=&;0 9xw:"))
    members[name] = bytes(content[: data.draw(st.none() | st.integers(0, len(content)))])
    if data.draw(st.integers(0, 5)) == 0:
        del members[name]
    read_or_refuse(pack(members), uri)


@given(st.binary(max_size=300), st.sampled_from(sorted(FILES)))
def test_any_bytes_under_any_name_give_text_or_a_reason(content: bytes, uri: str) -> None:
    read_or_refuse(content, uri)


def unpack(package: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def changed(uri: str, member: str, change: Callable[[bytes], bytes]) -> bytes:
    members = unpack(FILES[uri])
    members[member] = change(members[member])
    return pack(members)


def sheet(rows: str) -> bytes:
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    xml = f'<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>'.encode()
    return changed("a.xlsx", "xl/worksheets/sheet1.xml", lambda _: xml)


def secret_docx(declaration: bytes) -> bytes:
    return changed(
        "a.docx", "word/document.xml", lambda xml: xml.replace(b"<w:document", declaration + b"<w:document", 1)
    )


def book_with(declaration: bytes) -> bytes:
    return changed("a.epub", "OPS/book.opf", lambda xml: declaration + xml)


def nested_mail(kind: bytes, depth: int) -> bytes:
    return (b"Subject: x\nContent-Type: " + kind + b"\n\n") * depth + b"Subject: x\n\ny"


def parted_mail(parts: bytes) -> bytes:
    return b'Subject: x\nContent-Type: multipart/mixed; boundary="b"\n\n' + parts


FAR = '<row r="9999999999"><c r="A9999999999"><v>1</v></c></row>'
EXTERNAL = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
HOSTILE = {
    "100,000 nested elements": ("a.html", b"<div>" * 100_000 + b"x", "too large"),
    "nested behind a comment": ("a.html", b"<!-- <script> -->" + b"<span>" * 100_000, "too large"),
    "formatting reopened for ever": ("a.html", b"<b>" * 1900 + b"<p>x" * 100_000, "too large"),
    "50,000 options": ("a.html", b"<p>x<select>" + b"<option>a" * 50_000, None),
    "script full of tags": ("a.html", b"<script>" + b"'<div>'" * 50_000 + b"</script><p>x", None),
    "comments before nothing": ("a.html", b"<!---->" * 600 + b"<p>x", None),
    "200,000 brackets in a heading": ("a.md", b"# " + b"[" * 200_000, None),
    "20,000 link definitions": ("a.md", b"[a]: b\n" * 20_000 + b"# x", None),
    "quotes without an end": ("a.csv", b'a,b\n"' + b"x,y\n" * 100_000, None),
    "a million columns": ("a.csv", b"first," + b"," * 1_000_000 + b"last", None),
    "a row at the end of the world": ("a.xlsx", sheet(FAR), "no text"),
    "a bomb of spaces": ("a.docx", changed("a.docx", "word/document.xml", lambda _: b" " * 100 * MIB), "too large"),
    "entities": ("a.docx", secret_docx(b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]>'), "corrupt"),
    "an entity from a file": ("a.docx", secret_docx(EXTERNAL), "corrupt"),
    "a long key above many values": ("a.json", b'{"' + b"k" * MIB + b'":[' + b'{"y":[{}, "z"]},' * 1000 + b"1]}", None),
    "digits": ("a.jsonl", b'{"text": "x", "n": ' + b"1" * 100_000 + b"}", "corrupt"),
    "a book that is a bomb": ("a.epub", changed("a.epub", "OPS/a.xhtml", lambda _: b" " * 100 * MIB), "too large"),
    "a book of one page for ever": ("a.epub", make_files.epub("", {"a": "<p>x" * 9999}, spine="a " * 99_999), None),
    "entities in a book": ("a.epub", book_with(b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]>'), "corrupt"),
    "quotes that do not end": ("a.epub", make_files.epub("", {"a": "x" + "<a '<a \"" * 100_000}), "too large"),
    "a mail of 100,000 parts": ("a.eml", parted_mail(b"--b\n\nx\n" * 100_000), "too large"),
    "mails in mails": ("a.eml", nested_mail(b"message/rfc822", 10_000), "too large"),
    "mails in files in mails": ("a.eml", nested_mail(b"application/x; name=a.eml", 10_000), "too large"),
    "parts in parts": ("a.eml", nested_mail(b"multipart/mixed; boundary=b\n\n--b", 10_000), "too large"),
    "a mail of short lines": ("a.eml", b"Subject: x\n\n" + b"x\n" * 3_000_000, "too large"),
    "400,000 recipients": ("a.eml", b"To: " + b'"x" <a@b>,\n ' * 400_000 + b"\n\ny", None),
    "parameters": ("a.eml", parted_mail((b"--b\nContent-Type: a/b" + b";x*1=y" * 9000 + b"\n\nx\n") * 99), None),
    "a million marks on one letter": ("a.txt", ("a" + "\u0316\u0301" * 500_000).encode(), None),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_little(name: str) -> None:
    uri, content, reason = HOSTILE[name]
    started = time.monotonic()
    assert read_or_refuse(content, uri) == reason
    assert time.monotonic() - started < 30  # most take far less than a second; the square of their size takes minutes


def chart_with(old: bytes, new: bytes) -> bytes:
    """A deck whose chart has something else in one place."""
    members = unpack(make_files.slides_with_chart())
    chart = next(name for name in members if name.startswith("ppt/charts/chart"))
    assert old in members[chart]
    members[chart] = members[chart].replace(old, new)
    return pack(members)


def test_a_chart_that_cannot_be_read_costs_the_deck_nothing_else() -> None:
    assert "Sales: Q1 1.5, Q2 2" in read(make_files.slides_with_chart(), "a.pptx", max_bytes=MIB).documents[0].text
    result = read(chart_with(b'<c:pt idx="0">', b'<c:pt idx="first">'), "a.pptx", max_bytes=MIB)
    assert "Sales" not in result.documents[0].text
    assert "With a chart" in result.documents[0].text
    assert [failure.reason for failure in result.failures] == ["corrupt"]


def test_a_chart_of_any_kind_is_read_by_the_points_it_has() -> None:
    for old, new in ((b"c:barChart", b"c:bar3DChart"), (b'<c:ptCount val="2"/>', b'<c:ptCount val="4000000000"/>')):
        result = read(chart_with(old, new), "a.pptx", max_bytes=MIB)
        assert "Sales: Q1 1.5, Q2 2" in result.documents[0].text
    missing = read(chart_with(b"<c:v>1.5</c:v>", b"<c:v>#N/A</c:v>"), "a.pptx", max_bytes=MIB)
    assert "Sales: Q1 #N/A, Q2 2" in missing.documents[0].text


def test_every_exception_of_the_libraries_is_mapped() -> None:
    raw = Raw(b"", "a", Limits(1))
    mapped = {
        docx_reader.ERRORS: (docx.exceptions, docx.opc.exceptions, docx.image.exceptions),
        pptx_reader.ERRORS: (pptx.exc,),
        xlsx_reader.ERRORS: (openpyxl.utils.exceptions,),
        epub_reader.ERRORS: (lxml.etree,),
        eml_reader.ERRORS: (email.errors,),
        (lxml.etree.Error,): (lxml.etree,),
    }
    noted = (Warning, email.errors.MessageDefect)  # never raised
    for errors, modules in mapped.items():
        for module in modules:
            for name, error in inspect.getmembers(module, inspect.isclass):
                public = not name.startswith("_")
                if public and issubclass(error, Exception) and not issubclass(error, noted):
                    with pytest.raises(UnreadableError), map_errors(raw, *errors):
                        raise error.__new__(error)
