"""Mails: what stands in the text and where, attachments under their names, and what is reported of those that fail."""

import base64
import io
import quopri
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexers.base import Document, UnreadableError
from indexers.canonical import canonical
from indexers.read import read
from indexers.readers.base import Extract, Limits, Raw
from indexers.readers.eml import read_eml
from indexers.readers.formats import EML, HTML, Format
from indexers.sources import Upload
from indexers.structure import Pages, sections
from server.ingest import Target
from tests import make_files
from tests.desks import open_desk
from tests.test_read import check, headings, read_one

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
HEADS = "From: Zoë Müller <zoe@example.org>\nTo: desk@example.org\nDate: Fri, 15 Nov 2024 09:30:00 +0100"


def both(data: bytes) -> tuple[Document, UnreadableError]:
    """The document, and the one report beside it."""
    result = read(data, "a.eml", max_bytes=2**24)
    (document,), (failure,) = result.documents, result.failures
    check(document)
    assert failure.source == "a.eml"
    return document, failure


def place(document: Document, words: str) -> tuple[tuple[str, ...], int | None]:
    """The headings above some words, and the page that they are on."""
    at = document.text.index(words)
    path = [section.path for section in sections(document.marks) if section.start <= at][-1]
    return path, Pages(document.marks).at(at)


def body(data: bytes, kind: str, encoding: str = "8bit") -> bytes:
    return f"Subject: x\nContent-Type: {kind}\nContent-Transfer-Encoding: {encoding}\n\n".encode() + data


def text_of(data: bytes) -> str:
    """A mail's text without its headers, of which there is but a subject."""
    return read_one(data, "a.eml").text.partition("\n\n")[2]


def test_a_mail_is_its_subject_its_headers_and_its_text() -> None:
    document = read_one(make_files.mail("Prüfung – 概要", "One.\n\n  Two,\nthree.\n"), "a.eml")
    assert document.title == "Prüfung – 概要"
    assert document.text == f"Prüfung – 概要\n\n{HEADS}\n\nOne.\n\n  Two,\nthree."
    assert headings(document) == [(1, "Prüfung – 概要")]
    assert document.media_type == "message/rfc822"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Co", "Cn"])).filter(lambda text: bool(text.split())))
def test_any_text_comes_back_as_canonical_text(text: str) -> None:
    data = base64.encodebytes(text.encode())
    assert text_of(body(data, "text/plain; charset=utf-8", "base64")).strip() == canonical(text).strip("\ufeff").strip()


GERMAN = "Die Prüfung der Außenlager folgt am Dienstag, die übrigen Räume später."
RUSSIAN = "Проверка внешних складов состоится во вторник, остальные помещения позже."
JAPANESE = "倉庫の検査は火曜日に行われます。"


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        (GERMAN, "cp1252", "; charset=iso-8859-1"),
        (GERMAN, "cp1252", "; charset=utf-8"),
        (GERMAN, "cp1252", ""),
        (GERMAN, "utf-8", "; charset=us-ascii"),
        (GERMAN, "utf-8", "; charset=iso-8859-1"),
        (GERMAN, "utf-8", "; charset=x-unknown"),
        (GERMAN, "utf-8", '; charset="\xff"'),
        (GERMAN, "utf-8", "; charset=utf-16"),
        (GERMAN, "utf-16-le", "; charset=utf-16"),
        (RUSSIAN, "koi8-r", "; charset=koi8-r"),
        (RUSSIAN, "cp1251", "; charset=us-ascii"),
        (JAPANESE, "iso2022_jp", "; charset=iso-2022-jp"),
        (JAPANESE, "iso2022_jp", ""),
        (JAPANESE, "shift_jis", "; charset=shift_jis"),
        *((GERMAN, "utf-8", f"; charset={name}") for name in ("punycode", "idna", "unicode-escape", "undefined")),
    ],
)
def test_what_a_charset_says_is_taken_unless_the_bytes_say_otherwise(text: str, encoding: str, declared: str) -> None:
    assert text_of(body(text.encode(encoding), f"text/plain{declared}")) == text
    assert (
        text_of(body(quopri.encodestring(text.encode(encoding)), f"text/plain{declared}", "quoted-printable")) == text
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"=?utf-8?q?Pr=C3=BC?= =?utf-8?b?ZnVuZw==?= of", "Prüfung of"),
        (b"=?utf-8?q?Pr=C3?=\r\n =?utf-8?q?=BCfung?=", "Prüfung"),  # a letter cut in two
        (b"=?iso-8859-1*de?q?Pr=FCfung?= C:\\users", "Prüfung C:\\users"),
        (b"=?utf-8?b?A?= bad", "=?utf-8?b?A?= bad"),
        (b"=?x-none?q?Pr=C3=BCfung?=", "Prüfung"),
        ("Prüfung 概要".encode(), "Prüfung 概要"),
        ("Prüfung der Außenlager".encode("cp1252"), "Prüfung der Außenlager"),
        (b"folded\r\n\t line", "folded line"),
    ],
)
def test_words_of_headers_are_decoded(written: bytes, read: str) -> None:
    assert read_one(b"Subject: " + written + b"\n\nx", "a.eml").title == read


def test_a_mail_in_two_forms_is_read_once() -> None:
    page = "<html><head><title>x</title></head><body><h1>Plan</h1><p>Pr&uuml;fung<ul><li>one<li>two</ul>"
    assert text_of(make_files.mail("s", "Plain.", html=page)).endswith("+0100\n\nPlain.")
    document = read_one(make_files.mail("s", " \n", html=page), "a.eml")
    assert document.text == f"s\n\n{HEADS}\n\nPlan\n\nPrüfung\n\none\ntwo"
    assert headings(document) == [(1, "s"), (2, "Plan")]


def test_forms_of_a_text_that_have_names_are_no_attachments() -> None:
    forms = "".join(f"--a\nContent-Type: text/{kind}; name=a.{kind}\n\nThe same.\n" for kind in ("html", "plain"))
    mail = f"Subject: s\nContent-Type: multipart/alternative; boundary=a\n\n{forms}--a--\n"
    assert read_one(mail, "a.eml").text == "s\n\nThe same."


def test_the_attachments_of_a_mail_are_bounded_together() -> None:
    slides = make_files.slides([("Title", "words " * 200, "")])
    kind = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
    attachments = [(f"{n}.pptx", kind, slides) for n in range(20)]
    limits = replace(Limits(2**24), max_chars=9_000)
    failure, extract = read_eml(Raw(make_files.mail("s", "Text.", attachments=attachments), "a.eml", limits))
    assert isinstance(failure, UnreadableError)
    assert isinstance(extract, Extract)
    assert [f"{n}.pptx" in extract.text for n in (0, 6, 7, 19)] == [True, True, False, False]
    assert failure.reason == "too large"
    assert "'7.pptx': with those before it it holds over 9000 characters" in failure.detail
    assert "'8.pptx': those before it are too long" in failure.detail


@pytest.mark.parametrize("order", [("html", "calendar"), ("calendar", "html")])
def test_a_page_goes_before_an_invitation(order: tuple[str, str]) -> None:
    forms = "".join(f"--a\nContent-Type: text/{kind}\n\n{kind}.\n" for kind in order)
    mail = f"Subject: s\nContent-Type: multipart/alternative; boundary=a\n\n{forms}--a--\n"
    assert read_one(mail, "a.eml").text == "s\n\nhtml."


def test_what_is_attached_to_the_form_that_is_not_read_is_read() -> None:
    """As Apple Mail sends it: text/plain, or a page with a file between its halves."""
    parts = (
        b"Subject: s\nContent-Type: multipart/alternative; boundary=a\n\n--a\n\nPlain.\n--a\n"
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>Page.\n--b\n"
        b'Content-Type: text/plain; name="list.txt"\nContent-Disposition: inline\n\nMilk.\n--b--\n--a--\n'
    )
    assert read_one(parts, "a.eml").text == "s\n\nPlain.\n\nlist.txt\n\nMilk."


def test_lines_of_format_flowed_are_joined() -> None:
    flowed = b"A long \nline \nends.\n Spaced.\n> quoted \n> on\nNot quoted.\n-- \nZo"
    kind = "text/plain; format=flowed"
    assert text_of(body(flowed, kind)) == "A long line ends.\nSpaced.\n> quoted on\nNot quoted.\n-- \nZo"
    assert text_of(body("火曜 \r\n日".encode(), kind + "; charset=utf-8; delsp=yes")) == "火曜日"


def test_attachments_stand_under_their_names_and_pages_are_theirs_alone() -> None:
    first = make_files.pdf("One", [[("Alpha", ["First words."])], [("Beta", ["Second words."])]])
    second = make_files.pdf("Two", [[("Gamma", ["Third words."])]])
    attachments = [
        ("first report.pdf", "application/pdf", first),
        ("Übersicht 概要.csv", "text/csv", "Name,City\nRasmussen,Wörgl\n".encode()),
        ("second.pdf", "application/octet-stream", second),
        ("lines.jsonl", "application/x-ndjson", b'{"title": "Line", "text": "Fourth words."}\n'),
    ]
    document = read_one(make_files.mail("Papers", "See below.", attachments=attachments), "a.eml")
    assert place(document, "See below.") == (("Papers",), None)
    assert place(document, "City: Wörgl") == (("Papers", "Übersicht 概要.csv"), None)
    assert place(document, "Fourth words.") == (("Papers", "lines.jsonl", "Line"), None)
    assert place(document, "first report.pdf") == (("Papers", "first report.pdf"), 1)
    assert place(document, "First words.") == (("Papers", "first report.pdf", "One"), 1)
    assert place(document, "Second words.")[1] == 2
    assert place(document, "second.pdf") == (("Papers", "second.pdf"), 1)
    assert place(document, "Third words.")[1] == 1


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cut.pdf", b"%PDF-1.4 and nothing else", "corrupt"),
        ("photo.png", PNG, "unsupported"),
        ("plan.docx", PNG, "type mismatch"),
        ("empty.txt", b"", "empty"),
    ],
)
def test_an_attachment_that_cannot_be_read_costs_the_rest_nothing(name: str, data: bytes, reason: str) -> None:
    attachments = [(name, "application/octet-stream", data), ("good.txt", "application/octet-stream", b"Good words.")]
    document, failure = both(make_files.mail("s", "Text.", attachments=attachments))
    assert document.text.endswith("Text.\n\ngood.txt\n\nGood words.")
    assert failure.reason == reason
    assert name in failure.detail


def test_several_that_fail_are_one_report() -> None:
    attachments = [("a.pdf", "application/pdf", b"%PDF-"), ("b.png", "application/x", PNG)]
    _, failure = both(make_files.mail("s", "Text.", attachments=attachments))
    assert failure.reason == "corrupt"
    assert all(told in failure.detail for told in ("2 of its parts", "'a.pdf'", "'b.png'", "(unsupported)"))


def test_pictures_of_a_page_and_signatures_are_no_attachments() -> None:
    parts = (
        b"Subject: s\nContent-Type: multipart/mixed; boundary=a\n\n--a\n\nText.\n--a\n"
        b"Content-Type: image/png; name=a.png\nContent-ID: <1>\nContent-Disposition: attachment\n\n"
        + PNG
        + b"\n--a\nContent-Type: image/gif\n\nGIF8\n--a\n"
        b"Content-Type: application/pgp-signature; name=signature.asc\n\nwA\n--a--\n"
    )
    assert read_one(parts, "a.eml").text == "s\n\nText."


INNER = make_files.mail("Inner", "Inner text.", attachments=[("deep.txt", "text/plain", b"Deep words.")])


def attached(head: str, data: bytes) -> bytes:
    return (
        f"Subject: Outer\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nOuter text.\n--x\n{head}\n\n".encode()
        + data
    )


@pytest.mark.parametrize(
    "data",
    [
        attached("Content-Type: message/rfc822", INNER + b"\n--x--"),
        attached(
            "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64", base64.encodebytes(INNER) + b"--x--"
        ),
        attached(
            "Content-Type: application/octet-stream; name=a.eml\nContent-Transfer-Encoding: base64",
            base64.encodebytes(INNER) + b"--x--",
        ),
    ],
    ids=["message", "encoded message", "file"],
)
def test_a_mail_in_a_mail_is_read_under_its_subject_with_its_attachments(data: bytes) -> None:
    document = read_one(data, "a.eml")
    assert document.title == "Outer"
    assert document.text == f"Outer\n\nOuter text.\n\nInner\n\n{HEADS}\n\nInner text.\n\ndeep.txt\n\nDeep words."
    assert headings(document) == [(1, "Outer"), (2, "Inner"), (3, "deep.txt")]


def test_a_mail_that_was_cut_short_says_so() -> None:
    document, failure = both(attached("Content-Type: text/csv; name=log.csv", b"time,port\n08:11,Nor"))
    assert place(document, "port: Nor") == (("Outer", "log.csv"), None)
    assert (failure.reason, "'log.csv'" in failure.detail) == ("corrupt", True)


def test_what_is_encrypted_is_reported_and_the_headers_are_read() -> None:
    kinds = ["multipart/encrypted; boundary=a", "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m"]
    for kind in kinds:
        document, failure = both(body(b"--a\n\nVersion: 1\n--a--", kind))
        assert (document.text, failure.reason) == ("x", "encrypted")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfSubject: x\r\n\r\nwords",
        b"\r\nSubject: x\r\rwords",
        b"From zoe@example.org Fri Nov 15 09:30:00 2024\nX-Spam: no\nsubject: x\n\nwords",
        b"subject :x\n\nwords",
    ],
)
def test_a_mail_is_known_by_its_headers(data: bytes) -> None:
    assert read_one(data, "a.EML").text.endswith("words")


@pytest.mark.parametrize("data", [b"Dear all,\nSubject: x", b"Note: milk\n\nSubject: x", b"<html>\nSubject: x", PNG])
def test_what_has_no_headers_is_no_mail(data: bytes) -> None:
    with pytest.raises(UnreadableError) as caught:
        read(data, "a.eml", max_bytes=2**20)
    assert caught.value.reason == "type mismatch"


def test_a_new_reader_of_attachments_reads_mails_again() -> None:
    newer = Format("html", HTML.version + 1, HTML.library, HTML.media_type, HTML.extensions)
    inner = tuple(newer if format is HTML else format for format in EML.inner)
    assert HTML in EML.inner
    assert (
        Format("eml", EML.version, EML.library, EML.media_type, EML.extensions, inner=inner).extractor != EML.extractor
    )


async def test_a_mail_and_what_is_attached_to_it_are_one_document(tmp_path: Path) -> None:
    attachments = [("good.txt", "text/plain", b"Good words."), ("cut.pdf", "application/pdf", b"%PDF-1.4")]
    data = make_files.mail("s", "Text.", attachments=attachments)
    async with open_desk(tmp_path) as desk:
        first = await desk.pipeline.ingest([Upload("a.eml", io.BytesIO(data))], Target("docs"))
        assert (first.tally.added, [failure.source for failure in first.tally.failures]) == (1, ["a.eml"])
        again = await desk.pipeline.ingest([Upload("a.eml", io.BytesIO(data))], Target("docs", prune=True))
        assert (again.tally.unchanged, again.tally.pruned) == (1, 0)
        other = await desk.pipeline.ingest([Upload("a.eml", io.BytesIO(data))], Target("docs", groups=("hr",)))
        assert other.tally.patched == 1
