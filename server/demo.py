"""Real documents for the demo: refdesk's own Markdown files, one of them made into a PDF, another into a DOCX.

The two stand in place of their originals, so that nothing is there twice and an answer shows page numbers.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import docx
import pypdfium2
import pypdfium2.raw as pdfium
from markdown_it import MarkdownIt

from server.base import InvalidRequestError

ROOT = Path(__file__).resolve().parent.parent
AS_PDF, AS_DOCX = "docs/http.md", "docs/filters.md"
QUESTIONS = (
    "What happens when an upload is larger than the limit?",
    "What happens to a filter with an unknown operator?",
    "Why is a quote verbatim?",
)

PAGE_POINTS = (595.0, 842.0)  # A4
MARGIN_POINTS = 64.0
LINES_KEPT = 12  # lines of one block that are moved to the next page rather than divided
Kind = Literal["heading", "text", "code"]
STYLES: dict[Kind, tuple[str, float]] = {  # font, size in points
    "heading": ("Helvetica-Bold", 14.0),
    "text": ("Helvetica", 10.0),
    "code": ("Courier", 8.5),
}
LATIN = str.maketrans({"→": "->", "≥": ">=", "≤": "<="})  # what cp1252, the fonts' alphabet, lacks


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph (a list item, a table's row) or a listing. `level` is a heading's."""

    kind: Kind
    text: str
    level: int = 0


def make_documents(folder: Path, root: Path = ROOT) -> list[Path]:
    """Write the demo's documents into `folder`; returns their paths. Raises InvalidRequestError if there are none."""
    originals = sorted(path for path in (root / "README.md", *(root / "docs").glob("*.md")) if path.is_file())
    if not originals:
        raise InvalidRequestError(f"no README.md or docs/*.md under {str(root)!r}: name a folder, `refdesk demo PATH`")
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(path, folder, path.relative_to(root).as_posix()) for path in originals]


def _make(original: Path, folder: Path, name: str) -> Path:
    text = original.read_text(encoding="utf-8")
    if name == AS_PDF:
        return write_pdf(list(blocks(text)), folder / f"{original.stem}.pdf")
    if name == AS_DOCX:
        return write_docx(list(blocks(text)), folder / f"{original.stem}.docx")
    copy = folder / original.name
    copy.write_text(text, encoding="utf-8")
    return copy


def blocks(markdown: str) -> Iterator[Block]:
    """The headings, paragraphs, table rows and listings of a Markdown text, in order, without its markup."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    row: list[str] | None = None
    for previous, token in zip([None, *tokens], tokens, strict=False):
        if token.type in {"fence", "code_block"}:
            yield Block("code", token.content.rstrip("\n"))
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            yield Block("text", " | ".join(row or ()))
            row = None
        elif token.type == "inline":
            words = "".join(" " if c.type in {"softbreak", "hardbreak"} else c.content for c in token.children or ())
            if row is not None:
                row.append(words)
            elif previous is not None and previous.type == "heading_open":
                yield Block("heading", words, int(previous.tag[1:]))
            else:
                yield Block("text", words)


def write_docx(content: Sequence[Block], path: Path) -> Path:
    """The blocks as a Word document, headings as headings."""
    document = docx.Document()
    for block in content:
        if block.kind == "heading":
            document.add_heading(block.text, level=block.level)
        else:
            document.add_paragraph(block.text)
    document.save(str(path))
    return path


def write_pdf(content: Sequence[Block], path: Path) -> Path:
    """The blocks on A4 pages, in the fonts every PDF reader has, which know Latin letters only."""
    pdf = pypdfium2.PdfDocument.new()
    page, y = None, 0.0
    for block in content:
        font, size = STYLES[block.kind]
        lines = _lines(pdf, block)
        # A paragraph is kept on one page if it can be, and no heading stands alone at a page's end.
        needed = size * 1.35 * min(len(lines) + (3 if block.kind == "heading" else 0), LINES_KEPT)
        y -= size if block.kind == "heading" else 0.0
        for i, line in enumerate(lines):
            if page is None or y < MARGIN_POINTS + (needed if i == 0 else 0.0):
                _finish(page)
                page, y = pdf.new_page(*PAGE_POINTS), PAGE_POINTS[1] - MARGIN_POINTS
            _place(pdf, page, line, (font, size, y))
            y -= size * 1.35
        y -= size * (0.3 if block.kind == "heading" else 0.7)
    _finish(page)
    pdf.save(str(path))
    pdf.close()
    return path


def _lines(pdf: pypdfium2.PdfDocument, block: Block) -> list[str]:
    """The block's lines, each as full as the page's width allows; a listing's own lines are kept."""
    font, size = STYLES[block.kind]
    text = block.text.translate(LATIN).encode("cp1252", "replace").decode("cp1252")
    width = PAGE_POINTS[0] - 2 * MARGIN_POINTS
    advances = {c: _advance(pdf, c, font) * size for c in set(text + " ")}
    lines: list[str] = []
    for paragraph in text.split("\n") if block.kind == "code" else [text]:
        line, used = "", 0.0
        for word in re.findall(r"\s*\S+", paragraph):
            needed = sum(advances[c] for c in word)
            if line and used + needed > width:
                lines.append(line)
                word = word.lstrip()
                line, used = word, sum(advances[c] for c in word)
            else:
                line, used = line + word, used + needed
        lines.append(line)
    return lines


@cache
def _advance(pdf: pypdfium2.PdfDocument, character: str, font: str) -> float:
    """How far a character moves the pen, in ems: what ten more of it add to the width of one."""
    one, eleven = (_width(pdf, "|" + character * count + "|", font) for count in (1, 11))
    return (eleven - one) / 10 / 100


def _width(pdf: pypdfium2.PdfDocument, text: str, font: str) -> float:
    shape = _text(pdf, text, font, 100.0)
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    pdfium.FPDFPageObj_GetBounds(shape, left, bottom, right, top)
    pdfium.FPDFPageObj_Destroy(shape)
    return right.value - left.value


def _place(pdf: pypdfium2.PdfDocument, page: pypdfium2.PdfPage, line: str, style: tuple[str, float, float]) -> None:
    """One line of text at a height of the page; `style` is font, size and height."""
    font, size, y = style
    shape = _text(pdf, line, font, size)
    pdfium.FPDFPageObj_Transform(shape, 1, 0, 0, 1, MARGIN_POINTS, y)
    pdfium.FPDFPage_InsertObject(page, shape)


def _text(pdf: pypdfium2.PdfDocument, text: str, font: str, size: float) -> pdfium.FPDF_PAGEOBJECT:
    shape = pdfium.FPDFPageObj_NewTextObj(pdf, font.encode(), size)
    utf16 = (text + "\0").encode("utf-16-le")
    buffer = ctypes.create_string_buffer(utf16, len(utf16))
    pdfium.FPDFText_SetText(shape, ctypes.cast(buffer, pdfium.FPDF_WIDESTRING))
    return shape


def _finish(page: pypdfium2.PdfPage | None) -> None:
    if page is not None:
        page.gen_content()
        page.close()
