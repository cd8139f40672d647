"""Small real files of each format, made with the libraries that write them; `write_pdf` typesets plain sections."""

import io
import itertools
import re
import textwrap
import zipfile
from collections.abc import Collection, Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP

import docx
import openpyxl
import pptx
import pypdfium2
import pypdfium2.raw as pdfium
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

Section = tuple[str, Sequence[str]]  # a heading and its paragraphs

_A4 = (595.0, 842.0)
_MARGIN, _BODY, _LEADING, _LINE_CHARS = 72.0, 11.0, 14.0, 84
_TITLE, _HEADING = 20.0, 15.0


class _Typesetter:
    """Sets lines from the top of a page down and turns the page when it is full."""

    def __init__(self) -> None:
        self.document = pypdfium2.PdfDocument.new()
        self.page: pypdfium2.PdfPage | None = None
        self.y = 0.0

    def line(self, text: str, size: float, font: bytes) -> None:
        if self.page is None or self.y < _MARGIN:
            self.new_page()
        assert self.page is not None
        words = pdfium.FPDFPageObj_NewTextObj(self.document.raw, font, size)
        buffer = (pdfium.FPDF_WCHAR * (len(text) + 1))(*(ord(c) for c in text), 0)
        pdfium.FPDFText_SetText(words, buffer)
        pdfium.FPDFPageObj_Transform(words, 1, 0, 0, 1, _MARGIN, self.y)
        pdfium.FPDFPage_InsertObject(self.page.raw, words)
        self.y -= _LEADING * max(size / _BODY, 1)

    def new_page(self) -> None:
        self.finish_page()
        self.page, self.y = self.document.new_page(*_A4), _A4[1] - _MARGIN

    def finish_page(self) -> None:
        if self.page is not None:
            pdfium.FPDFPage_GenerateContent(self.page.raw)
            self.page.close()
            self.page = None


def pdf(title: str, pages: Sequence[Sequence[Section]]) -> bytes:
    """A PDF with Latin text in Helvetica: the title, then each page's sections, lines wrapped at 84 characters."""
    setter = _Typesetter()
    for number, sections in enumerate(pages):
        setter.new_page()
        if number == 0:
            setter.line(title, _TITLE, b"Helvetica-Bold")
            setter.y -= _LEADING
        for heading, paragraphs in sections:
            setter.line(heading, _HEADING, b"Helvetica-Bold")
            for paragraph in paragraphs:
                for line in textwrap.wrap(paragraph, _LINE_CHARS):
                    setter.line(line, _BODY, b"Helvetica")
                setter.y -= 0.6 * _LEADING
    setter.finish_page()
    buffer = io.BytesIO()
    setter.document.save(buffer)
    setter.document.close()
    return buffer.getvalue()


def without_pages(data: bytes, numbers: Collection[int]) -> bytes:
    """The bytes of `pdf` with the objects of these pages (from 1) overwritten, so that they cannot be loaded."""
    count = itertools.count(1)

    def damaged(page: re.Match[bytes]) -> bytes:
        return b"null".ljust(len(page[0])) if next(count) in numbers else page[0]

    return re.sub(rb"<</Contents[^\r\n]*/Type/Page>>", damaged, data)


def word(title: str, sections: Sequence[Section], rows: Sequence[Sequence[str]] = ()) -> bytes:
    """A DOCX with Heading 1 sections and, at the end, a table."""
    document = docx.Document()
    document.core_properties.title = title
    for heading, paragraphs in sections:
        document.add_heading(heading, level=1)
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
    if rows:
        table = document.add_table(rows=len(rows), cols=len(rows[0]))
        for row, values in zip(table.rows, rows, strict=True):
            for cell, value in zip(row.cells, values, strict=True):
                cell.text = value
    return _saved(document)


def slides(pages: Sequence[tuple[str, str, str]]) -> bytes:
    """A PPTX of slides (title, body, notes), with a grouped text box on each."""
    presentation = pptx.Presentation()
    for title, body, notes in pages:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = body
        group = slide.shapes.add_group_shape()
        box = group.shapes.add_textbox(Inches(1), Inches(1), Inches(2), Inches(1))
        box.text_frame.text = f"grouped with {title}"
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    return _saved(presentation)


def workbook(sheets: dict[str, Sequence[Sequence[object]]]) -> bytes:
    """An XLSX with these rows in each sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    return _saved(book)


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


def slides_with_chart() -> bytes:
    """A PPTX with one slide that holds a bar chart."""
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "With a chart"
    values = CategoryChartData()
    values.categories = ["Q1", "Q2"]
    values.add_series("Sales", (1.5, 2))
    slide.shapes.add_chart(XL_CHART_TYPE.BAR_CLUSTERED, Inches(1), Inches(2), Inches(4), Inches(3), values)
    return _saved(presentation)


def slides_with_table(rows: Sequence[Sequence[str]]) -> bytes:
    """A PPTX with one slide that holds a table."""
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    shape = slide.shapes.add_table(len(rows), len(rows[0]), Inches(1), Inches(1), Inches(4), Inches(2))
    for row, values in zip(shape.table.rows, rows, strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    return _saved(presentation)


Attachment = tuple[str, str, bytes]  # a name, a media type, and the file


def mail(subject: str, text: str, *, html: str = "", attachments: Sequence[Attachment] = ()) -> bytes:
    """A mail from Zoë to the desk as programs send it; with `html` the text comes in both forms."""
    message = EmailMessage(SMTP)
    message["From"], message["To"], message["Subject"] = "Zoë Müller <zoe@example.org>", "desk@example.org", subject
    message["Date"] = "Fri, 15 Nov 2024 09:30:00 +0100"
    message.set_content(text, cte="base64")
    if html:
        message.add_alternative(html, subtype="html")
    for name, kind, data in attachments:
        main, sub = kind.split("/")
        message.add_attachment(data, main, sub, filename=name)
    return message.as_bytes()


def epub(metadata: str, pages: Mapping[str, str], *, spine: str = "", more: Mapping[str, str] | None = None) -> bytes:
    """An EPUB: `pages` are bodies by name, `spine` the order they are read in, where not as given; `more`: members."""
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in pages)
    order = "".join(f'<itemref idref="{name}"/>' for name in spine.split() or pages)
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "OPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:opf="http://www.idpf.org/2007/opf" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>{metadata}</metadata>'
        f"<manifest>{items}</manifest><spine>{order}</spine></package>",
    }
    for name, body in pages.items():
        head = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
        members[f"OPS/{name}"] = f"{head}<body>{body}</body></html>"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in {**members, **(more or {})}.items():
            package.writestr(name, content)
    return buffer.getvalue()
