"""Reading files of every format: what the text is, where its marks stand, and what is refused for which reason."""

import datetime
import hashlib
import io
import json
import unicodedata

import openpyxl
import pytest

from indexers.base import Document, UnreadableError
from indexers.canonical import canonical
from indexers.read import extractor, read
from tests import make_files

MIB = 2**20
PROSE = "The Kestrel pump must be serviced every six months by a trained technician, who replaces the oil seal first."


def read_one(data: bytes | str, uri: str, media_type: str | None = None) -> Document:
    data = data.encode() if isinstance(data, str) else data
    result = read(data, uri, media_type=media_type, max_bytes=50 * MIB)
    assert result.failures == ()
    (document,) = result.documents
    check(document)
    return document


def check(document: Document) -> None:
    """What holds for every document: canonical text, and marks in order at the start of a line."""
    assert canonical(document.text) == document.text
    assert document.text.strip()
    assert [m.start for m in document.marks] == sorted(m.start for m in document.marks)
    for mark in document.marks:
        assert mark.start == 0 or document.text[mark.start - 1] == "\n"


def headings(document: Document) -> list[tuple[int, str]]:
    return [(m.level, m.text) for m in document.marks if m.kind == "heading"]


def page_texts(document: Document) -> dict[int, str]:
    pages = [m for m in document.marks if m.kind == "page"]
    ends = [*(m.start for m in pages[1:]), len(document.text)]
    return {m.level: document.text[m.start : end].strip() for m, end in zip(pages, ends, strict=True)}


def failure(data: bytes, uri: str) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(data, uri, max_bytes=MIB)
    assert caught.value.source.startswith(uri)
    return caught.value.reason


# --- PDF -----------------------------------------------------------------------------------------------------------


def test_pdf_pages_headings_and_paragraphs() -> None:
    sections = [("Service", [" ".join([PROSE] * 3), "A second paragraph stands alone."])]
    document = read_one(make_files.pdf("Pump manual", [sections, [("Storage", ["Keep it dry."])]]), "docs/pump.pdf")
    assert document.title == "Pump manual"
    assert headings(document) == [(1, "Pump manual"), (2, "Service"), (2, "Storage")]
    assert " ".join([PROSE] * 3) + "\n\nA second paragraph" in document.text  # wrapped lines are one paragraph again
    assert page_texts(document)[2] == "Storage\n\nKeep it dry."
    assert document.media_type == "application/pdf"
    assert document.extractor.startswith("pdf-3+pypdfium2-")


def test_pdf_running_heads_stay_once() -> None:
    pages = [[(f"Handbook page {n}", [f"Chapter {word} text is here.", *["Filler."] * 3])]
             for n, word in enumerate(("one", "two", "three", "four", "five"), start=1)]  # fmt: skip
    document = read_one(make_files.pdf("Handbook", pages), "a.pdf")
    assert document.text.count("Handbook page") == 1 + 1  # the first page is lower: its head is another place's
    assert "Chapter five" in page_texts(document)[5]


def test_pdf_hyphens_of_line_breaking() -> None:
    lines = ["A well-known method of read-", "ing and of well-", "known things."]
    document = read_one(make_files.pdf("T", [[("H", lines)]]), "a.pdf")
    assert "reading" in document.text.replace("\n", "")
    assert "well-known things" in document.text.replace("\n", "")


def test_pdf_without_text_is_told_from_a_damaged_one() -> None:
    blank = make_files.pdf(" ", [[]])
    assert failure(blank, "a.pdf") == "no text"
    assert failure(blank[: len(blank) // 3], "a.pdf") == "corrupt"


def test_pdf_pages_that_cannot_be_loaded_are_reported_beside_the_others() -> None:
    data = make_files.pdf("T", [[(f"Heading {n}", ["Words."])] for n in range(1, 31)])
    result = read(make_files.without_pages(data, range(3, 30)), "a.pdf", max_bytes=MIB)
    assert page_texts(result.documents[0]) == {n: f"Heading {n}\n\nWords." for n in (1, 2, 30)} | {
        1: "T\n\nHeading 1\n\nWords."
    }
    (report,) = result.failures
    assert (report.source, report.reason) == ("a.pdf", "corrupt")
    pages = ", ".join(map(str, range(3, 23)))
    assert report.detail == f"27 of its 30 pages cannot be loaded: {pages}, …; save it anew"
    (report,) = read(make_files.without_pages(data, {7}), "a.pdf", max_bytes=MIB).failures
    assert report.detail == "1 of its 30 pages cannot be loaded: 7; save it anew"
    assert failure(make_files.without_pages(data, range(31)), "a.pdf") == "corrupt"


# --- Office --------------------------------------------------------------------------------------------------------


def test_docx_headings_tables_and_title() -> None:
    data = make_files.word(
        "Pump manual", [("Service", [PROSE, "Zoe\u0308 𝔉 🦆"])], [["Part", "Number"], ["Seal", "K-12"]]
    )
    document = read_one(data, "pump.docx")
    assert document.title == "Pump manual"
    assert document.text == f"Service\n\n{PROSE}\n\nZoë 𝔉 🦆\n\nPart | Number\nSeal | K-12"
    assert headings(document) == [(1, "Service")]


def test_pptx_slides_are_pages_with_groups_and_notes() -> None:
    document = read_one(
        make_files.slides([("First", "Body one", ""), ("Second", "Body two", "Say it slowly")]), "a.pptx"
    )
    assert page_texts(document) == {
        1: "First\n\nBody one\n\ngrouped with First",
        2: "Second\n\nBody two\n\ngrouped with Second\n\nNotes: Say it slowly",
    }
    assert headings(document) == [(1, "First"), (1, "Second")]
    assert document.title == "First"


def test_xlsx_numbers_are_found_as_they_are_written() -> None:
    numbers = [4111111111111111, 1234567890123456.0, 0.00001, 0.1 + 0.2, 12.5, 1e300, -3.0]
    document = read_one(make_files.workbook({"Cards": [["number"], *([n] for n in numbers)]}), "cards.xlsx")
    shown = ["4111111111111111", "1234567890123456", "0.00001", "0.3", "12.5", "1e+300", "-3"]
    assert document.text.split()[2:] == shown


def test_xlsx_values_are_what_the_sheet_shows() -> None:
    book = openpyxl.Workbook()
    shown: list[tuple[object, str, str]] = [
        (0.053, "0.0%", "5.3%"),
        (5.3, '0.0"%"', "5.3"),
        (5.3, r"0.0\%", "5.3"),
        (0.053, '"a" [Red]0.0_%%', "5.3%"),
        (datetime.datetime(2024, 5, 6, 0, 0, 30), "yyyy-mm-dd hh:mm:ss", "2024-05-06 00:00:30"),
        (datetime.datetime(2024, 5, 6, 7, 8), "yyyy-mm-dd hh:mm", "2024-05-06 07:08"),
        (datetime.datetime(2024, 5, 6), "yyyy-mm-dd", "2024-05-06"),
        (datetime.time(0, 0, 30), "hh:mm:ss", "00:00:30"),
        (datetime.time(9, 30), "hh:mm", "09:30"),
    ]
    for row, (value, number_format, _) in enumerate(shown, start=1):
        cell = book.active.cell(row, 1, value)
        cell.number_format = number_format
    buffer = io.BytesIO()
    book.save(buffer)
    assert read_one(buffer.getvalue(), "a.xlsx").text.split("\n")[2:] == [text for _, _, text in shown]


def test_xlsx_rows_are_whole_with_their_headers() -> None:
    rows = [["Part", "Price", "Stock"], ["Oil seal", 12.5, 3], ["Valve", 7, None]]
    document = read_one(make_files.workbook({"Parts": rows, "Empty": [], "Note": [["only words"]]}), "p.xlsx")
    assert (
        document.text == "Parts\n\nPart: Oil seal\nPrice: 12.5\nStock: 3\n\nPart: Valve\nPrice: 7\n\nNote\n\nonly words"
    )
    assert headings(document) == [(1, "Parts"), (1, "Note")]
    assert document.title == "p"


# --- HTML ----------------------------------------------------------------------------------------------------------

PAGE = """<html><head><title>Pump &amp; valve</title><style>p {}</style></head><body><nav>Menu</nav>
<h1>Manual<a class="headerlink">¶</a></h1><script>var x = "<p>no</p>"</script><p>One <b>bold</b>
line.<br>Next<p>Two<ul><li>a<li>b</ul><table><tr><th>Part<th>No</tr><tr><td>Seal<td><p>12</p></table>
<pre>x = 1
  y</pre><div hidden>gone</div><h2>End</h2>Bare</body></html>"""


def test_html_blocks_headings_tables_and_pre() -> None:
    document = read_one(PAGE, "a.html")
    assert document.title == "Pump & valve"
    assert document.text == (
        "Manual\n\nOne bold line.\nNext\n\nTwo\n\na\nb\n\nPart | No\nSeal | 12\n\nx = 1\n  y\n\nEnd\n\nBare"
    )
    assert headings(document) == [(1, "Manual"), (2, "End")]


# --- Markdown and text ---------------------------------------------------------------------------------------------


def test_markdown_is_its_own_text_without_front_matter() -> None:
    source = (
        '---\ntitle: "Pump"\ntags: [a]\n---\n\n'
        "# The *pump*\n\n```sh\n# no heading\n```\n\nSetext `x`\n---\n\n> # quoted\n"
    )
    document = read_one(source, "a.md")
    assert document.title == "Pump"
    assert document.text == source.split("---\n\n", 1)[1].strip()
    assert headings(document) == [(1, "The pump"), (2, "Setext x")]
    for mark, line in zip(document.marks, ("# The *pump*", "Setext `x`"), strict=True):
        assert document.text.startswith(line, mark.start)


def test_a_rule_on_the_first_line_is_no_front_matter() -> None:
    assert "kept words" in read_one("---\n\nkept words, they are: kept\n\n---\n\n# T\n", "a.md").text


# --- CSV, JSON, JSONL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_rows_are_whole_with_their_headers(delimiter: str) -> None:
    rows = [["id", "text"], ["1", 'says "a, b; c | d\te"\nand on'], ["2", ""]]
    quoted = "\r\n".join(delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    document = read_one(quoted, "a.csv")
    assert document.text == 'id: 1\ntext: says "a, b; c | d e" and on\n\nid: 2'


def test_csv_without_a_header_keeps_its_first_row() -> None:
    assert read_one("1,2\n3,4\n", "a.csv").text == "1 | 2\n3 | 4"
    assert read_one("sep=;\na;b\nc;d\n", "a.csv").text == "a: c\nb: d"
    assert read_one("a,b\n", "a.csv").text == "a | b"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (",Mon,Tue\nAlice,early,late\nBob,,sick\n", "Alice\nMon: early\nTue: late\n\nBob\nTue: sick"),
        ("Name;Phone;Phone\nAnna;Berlin;Paris\n", "Name: Anna\nPhone: Berlin\nPhone 2: Paris"),
        ("A;A;A 2\nx;y;z\n", "A: x\nA 3: y\nA 2: z"),
        ("Item,2022,2023,2024\nSales,,200,300\nA,B,C,D\n,7,,\n",
         "Item | 2022 | 2023 | 2024\nSales | - | 200 | 300\nA | B | C | D\n- | 7"),
        ("Report,,\nMade on,2024-01-01,\n\nName,Town,Since\nAnna,Rome,\n",
         "Report\nMade on | 2024-01-01\n\nName: Anna\nTown: Rome"),
        ("a" + "," * 31 + "b" + "," * 32 + "c\n", "a" + " | -" * 30 + " | b | … | c"),
        (",Sum\nAnna,Rome\nBert,Oslo\n", "- | Sum\nAnna | Rome\nBert | Oslo"),
    ],
)  # fmt: skip
def test_values_stay_under_their_own_column(source: str, text: str) -> None:
    assert read_one(source, "a.csv").text == text


def test_empty_cells_of_a_documents_table_keep_their_place() -> None:
    rows = [["", "", "Q1", "Q2"], ["", "Oslo", "5", ""], ["", "Rome", "", "7"]]
    text = "- | Q1 | Q2\nOslo | 5\nRome | - | 7"
    html = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    assert read_one(f"<table>{html}</table>", "a.html").text == text
    assert read_one(make_files.word("t", [("h", ["x"])], rows), "a.docx").text == f"h\n\nx\n\n{text}"
    assert read_one(make_files.slides_with_table(rows), "a.pptx").text == text


def test_json_paths_and_headings() -> None:
    source = {"name": "pump", "size": 1.10, "parts": [{"no": 12, "tags": ["a", "b"]}, {"ok": True, "none": None}]}
    document = read_one(json.dumps(source), "a.json")
    assert document.text == "name: pump\nsize: 1.1\n\nparts\n\n[0].no: 12\n[0].tags: a, b\n[1].ok: true"
    assert headings(document) == [(1, "parts")]


def test_jsonl_gives_a_document_a_line_and_reports_bad_ones() -> None:
    lines = [
        {"id": "a", "title": "First", "text": "One\u2028still one 🦆", "metadata": {"n": 1, "deep": {"t": ["x"]}}},
        None,
        {"_id": 7, "question": "Why?", "score": 2},
    ]
    data = "\r\n".join("{bad" if line is None else json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n[1]\n"
    result = read(data.encode(), "d/f.jsonl", max_bytes=MIB)
    first, third = result.documents
    assert (first.uri, first.title, first.text) == ("d/f.jsonl#1", "First", "One\u2028still one 🦆")
    assert first.metadata == {"id": "a", "n": 1.0, "deep.t": ["x"]}
    assert first.source_sha256 == hashlib.sha256(json.dumps(lines[0], ensure_ascii=False).encode()).hexdigest()
    assert (third.uri, third.title, third.text) == ("d/f.jsonl#3", "f#3", "question: Why?\nscore: 2")
    assert [(f.source, f.reason) for f in result.failures] == [("d/f.jsonl#2", "corrupt"), ("d/f.jsonl#5", "corrupt")]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ('{"": 1}', "metadata field ''"),
        ('{"$ref": "x"}', "metadata field '$ref'"),
        ('{"\\ud800": 1}', r"metadata field '\ud800'"),
        ('{"n": 9007199254740993}', "9007199254740993 is no finite float64; send it as a string"),
        ('{"n": 1' + "0" * 400 + "}", "is no finite float64; send it as a string"),
        ('{"n": -1' + "0" * 5000 + "}", "send it as a string"),
        ('{"deep": {"n": NaN}}', "metadata field 'deep.n': nan is no finite float64; send it as a string"),
        ('{"n": -Infinity}', "-inf is no finite float64"),
        ('{"n": 1e999}', "inf is no finite float64"),
        ('{"n": [1.5, Infinity]}', "inf is no finite float64"),
    ],
)
def test_metadata_that_no_index_holds_costs_its_line(metadata: str, told: str) -> None:
    lines = ['{"text": "One"}', f'{{"text": "Two", "metadata": {metadata}}}', '{"text": "Three"}']
    result = read("\n".join(lines).encode(), "a.jsonl", max_bytes=MIB)
    assert [d.uri for d in result.documents] == ["a.jsonl#1", "a.jsonl#3"]
    (report,) = result.failures
    assert (report.source, report.reason) == ("a.jsonl#2", "corrupt")
    assert told in report.detail
    assert len(report.detail) < 300


def test_integers_that_float64_holds_are_metadata() -> None:
    line = {"text": "x", "metadata": {"at": 2**53, "round": 2**60, "no": -0.0, "code": str(2**53 + 1), "none": None}}
    metadata = read_one(json.dumps(line), "a.jsonl").metadata
    assert metadata == {"at": 2.0**53, "round": 2.0**60, "no": 0.0, "code": "9007199254740993"}


# --- which format, which title -------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.mark.parametrize(
    ("data", "uri", "reason"),
    [
        (b"", "a.txt", "empty"),
        (b" \n\r\n ", "a.md", "empty"),
        (PNG, "a.pdf", "type mismatch"),
        (PNG, "a.png", "unsupported"),
        (PNG, "a.txt", "type mismatch"),
        (PAGE.encode(), "a.docx", "type mismatch"),
        (b"plain words", "a.pdf", "type mismatch"),
        (make_files.word("t", [("h", ["x"])]), "a.xlsx", "type mismatch"),
        (make_files.word("t", [("h", ["x"])])[:2000], "a.docx", "corrupt"),
        (make_files.workbook({"Empty": []}), "a.xlsx", "no text"),
        (b"PK\x05\x06" + bytes(18), "a.zip", "unsupported"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "a.docx", "encrypted"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "a.doc", "unsupported"),
        (b"A note: milk\n\nwords", "a.eml", "type mismatch"),
        (bytes((i * 7919 + i // 256 * 31) % 256 for i in range(6000)), "a.txt", "type mismatch"),
        (b"<script>only</script>", "a.html", "no text"),
        (b"{", "a.json", "corrupt"),
        (b"[" * 100_000, "a.json", "corrupt"),
        (b"x" * (MIB + 1), "a.txt", "too large"),
    ],
)
def test_refusals(data: bytes, uri: str, reason: str) -> None:
    assert failure(data, uri) == reason


@pytest.mark.parametrize(
    ("data", "uri", "media_type", "kind"),
    [
        (PAGE.encode(), "upload", None, "html"),
        (PAGE.encode(), "a.txt", None, "text"),
        (b"# Words", "README", None, "text"),
        (b"# Words", "upload", "text/markdown; charset=utf-8", "markdown"),
        (b"# Words", "a.md", "text/plain", "markdown"),
        (b"a = 1", "a.conf", "text/plain", "text"),
        (b"Subject: Words\n\nwords", "a.eml", "text/plain", "eml"),
        (b"Subject: Words\n\nwords", "upload", "message/rfc822", "eml"),
        (b"Subject: Words\n\nwords", "a.txt", "message/rfc822", "text"),
        (b"Subject: Words\n\nwords", "upload", None, "text"),
        (make_files.word("t", [("h", ["x"])]), "upload", "application/octet-stream", "docx"),
        (make_files.word("t", [("h", ["x"])]), "A.DOCX", None, "docx"),
    ],
)
def test_the_format_follows_from_content_then_name_then_media_type(
    data: bytes, uri: str, media_type: str | None, kind: str
) -> None:
    document = read_one(data, uri, media_type)
    assert document.extractor.split("-")[0] == kind
    assert document.extractor == extractor(data, uri, media_type=media_type)


NO_TITLES = [
    "Word Document",
    "Untitled 3",
    "(anonymous)",
    "Untitled document",
    "Microsoft Word - plan_v2.doc",
    "",
    "---",
]


@pytest.mark.parametrize("title", NO_TITLES)
def test_titles_that_say_nothing_are_passed_by(title: str) -> None:
    assert read_one(make_files.word(title, [("Real heading", ["x"])]), "a/b.docx").title == "Real heading"


def test_without_any_title_the_file_is_called_by_its_name() -> None:
    name = unicodedata.normalize("NFD", "notes/Überblick 概要.v2.txt")
    assert read_one(b"words", name).title == "Überblick 概要.v2"
