"""EPUBs: order, headings and title of what is read of a book; what is passed by, and what is refused."""

import io
import zipfile

import pytest

from indexers.base import UnreadableError
from indexers.read import read
from tests import make_files
from tests.test_read import failure, headings, read_one
from tests.test_read_damaged import pack, unpack

PAGES = {
    "z%20one.xhtml": "<h1>First</h1><p>Alpha.</p>",
    "a.xhtml": "<section><h2>Second</h2><p><a id='p2'/>Beta<br/>gamma.</p></section>",
}
BOOK = make_files.epub("<dc:title>Two  parts</dc:title><dc:creator>Zoë</dc:creator>", PAGES)
NAMED = pack({name.replace("%20", " "): content for name, content in unpack(BOOK).items()})
TEXT = "First\n\nAlpha.\n\nSecond\n\nBeta\ngamma."


def book(metadata: str = "", body: str = "<p>x</p>") -> bytes:
    return make_files.epub(metadata, {"a.xhtml": body})


def changed(member: str, old: str, new: str, data: bytes = BOOK) -> bytes:
    members = unpack(data)
    assert old.encode() in members[member]
    members[member] = members[member].replace(old.encode(), new.encode())
    return pack(members)


def protected(name: str, algorithm: str) -> bytes:
    """BOOK, of which a member is said to be encrypted."""
    xml = (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:e="http://www.w3.org/2001/04/xmlenc#">'
        f'<e:EncryptedData><e:EncryptionMethod Algorithm="{algorithm}"/><e:CipherData>'
        f'<e:CipherReference URI="{name}"/></e:CipherData></e:EncryptedData></encryption>'
    )
    return pack({**unpack(BOOK), "META-INF/encryption.xml": xml.encode()})


@pytest.mark.parametrize("data", [BOOK, NAMED], ids=["as written", "decoded"])
def test_a_book_is_its_documents_in_reading_order(data: bytes) -> None:
    document = read_one(data, "a.epub")
    assert document.text == TEXT
    assert headings(document) == [(1, "First"), (2, "Second")]
    assert [document.text[mark.start :].split("\n")[0] for mark in document.marks] == ["First", "Second"]
    assert (document.title, document.metadata) == ("Two parts", {"authors": ["Zoë"]})
    assert document.media_type == "application/epub+zip"


def test_the_spine_orders_and_not_the_file() -> None:
    pages = {name: f"<p>{name}</p>" for name in "abc"}
    assert read_one(make_files.epub("", pages, spine="c a c b none"), "a.epub").text == "c\n\na\n\nb"


def test_navigation_covers_and_pictures_are_passed_by() -> None:
    pages = {name: f"<h1>{name}</h1><p>words</p>" for name in ("cover", "nav", "toc", "one")} | {"two": "<img/>"}
    data = make_files.epub("", pages)
    data = changed("OPS/book.opf", 'id="nav"', 'id="nav" properties="scripted nav"', data)
    guide = '<guide><reference type="cover" href="cover"/><reference type="toc" href="toc"/></guide></package>'
    data = changed("OPS/book.opf", "</package>", guide, data)
    assert read_one(data, "a.epub").text == "one\n\nwords"


def test_a_guide_that_points_into_the_text_hides_nothing() -> None:
    for href in ("a.xhtml", "a.xhtml#contents"):
        guide = f'<guide><reference type="toc" href="{href}"/></guide></package>'
        assert read_one(changed("OPS/book.opf", "</package>", guide, book()), "a.epub").text == "x"


@pytest.mark.parametrize(
    ("metadata", "authors"),
    [
        ("<dc:creator opf:role='aut'>A</dc:creator><dc:creator opf:role='ill'>B</dc:creator>", ["A"]),
        (
            "<dc:creator id='a'>A</dc:creator><dc:creator id='b'>B</dc:creator>"
            "<meta refines='#b' property='role'>edt</meta>",
            ["A"],
        ),
        ("<dc:creator opf:role='edt'>A</dc:creator><dc:creator opf:role='edt'>A</dc:creator>", ["A"]),
        ("<dc:creator> A\n B </dc:creator><dc:creator/>", ["A B"]),
        ("<dc-metadata><dc:creator>A</dc:creator></dc-metadata>", ["A"]),
    ],
)
def test_authors_are_metadata(metadata: str, authors: list[str]) -> None:
    assert read_one(book(metadata), "a.epub").metadata == {"authors": authors}


def test_a_title_that_says_nothing_is_passed_by() -> None:
    assert read_one(book("<dc:title>Untitled</dc:title>", "<h1>Real</h1>"), "a.epub").title == "Real"
    assert read_one(book(), "shelf/my book.epub").title == "my book"


@pytest.mark.parametrize("uri", ["a.epub", "upload", "A.EPUB"])
def test_a_book_is_known_by_its_content(uri: str) -> None:
    assert read_one(BOOK, uri, "application/octet-stream").extractor.startswith("epub-")
    without = {name: content for name, content in unpack(BOOK).items() if name != "mimetype"}
    assert read_one(pack(without), "a.epub").text == TEXT


def test_fonts_may_be_obfuscated_and_documents_not_encrypted() -> None:
    assert read_one(protected("OPS/font.otf", "http://www.idpf.org/2008/embedding"), "a.epub").text == TEXT
    for name in ("OPS/a.xhtml", "OPS/book.opf"):
        assert failure(protected(name, "http://www.w3.org/2001/04/xmlenc#aes128-cbc"), "a.epub") == "encrypted"


@pytest.mark.parametrize(
    ("data", "uri", "reason"),
    [
        (BOOK[: len(BOOK) // 2], "a.epub", "corrupt"),
        (BOOK, "a.docx", "type mismatch"),
        (make_files.word("t", [("h", ["x"])]), "a.epub", "type mismatch"),
        (b"words", "a.epub", "type mismatch"),
        (pack({"mimetype": b"application/epub+zip"}), "a.epub", "corrupt"),
        (changed("META-INF/container.xml", "OPS/book.opf", "OPS/none.opf"), "a.epub", "corrupt"),
        (changed("OPS/book.opf", "</manifest>", ""), "a.epub", "corrupt"),
        (make_files.epub("", {}), "a.epub", "corrupt"),
        (book(body="<img/>"), "a.epub", "no text"),
    ],
)
def test_refusals(data: bytes, uri: str, reason: str) -> None:
    assert failure(data, uri) == reason


def test_a_document_that_is_lost_costs_the_book_nothing_else() -> None:
    members = unpack(BOOK)
    del members["OPS/a.xhtml"]
    buffer = io.BytesIO(BOOK)
    with zipfile.ZipFile(buffer) as package:
        at = package.getinfo("OPS/a.xhtml").header_offset + 60
    damaged = BOOK[:at] + b"\0\0\0\0" + BOOK[at + 4 :]
    for data in (pack(members), damaged):
        result = read(data, "a.epub", max_bytes=2**20)
        assert [document.text for document in result.documents] == ["First\n\nAlpha."]
        (lost,) = result.failures
        assert (lost.source, lost.reason, "'OPS/a.xhtml'" in lost.detail) == ("a.epub", "corrupt", True)


def test_a_book_in_a_mail_is_read() -> None:
    mail = make_files.mail("s", "Text.", attachments=[("a.epub", "application/epub+zip", BOOK)])
    document = read_one(mail, "a.eml")
    assert document.text.endswith(TEXT)
    assert headings(document)[1:] == [(2, "a.epub"), (3, "First"), (4, "Second")]


def test_no_other_file_is_opened() -> None:
    declared = '<!DOCTYPE package SYSTEM "file:///etc/passwd"><package'
    assert read_one(changed("OPS/book.opf", "<package", declared), "a.epub").text == TEXT
    entity = '<!DOCTYPE package [<!ENTITY a SYSTEM "file:///etc/passwd">]><package'
    with pytest.raises(UnreadableError, match="declares entities"):
        read(changed("OPS/book.opf", "<package", entity), "a.epub", max_bytes=2**20)
