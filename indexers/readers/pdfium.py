"""PDF pages as printed lines with geometry, through pdfium: the program that indexers/readers/apart.py runs.

A file of a few kilobytes can make pdfium take all memory, or abort the process that it is in.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping

import pypdfium2
import pypdfium2.raw as pdfium

from indexers.readers.apart import serve
from indexers.readers.printed import Line, Page

_ERROR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_MAX_FIELDS = 10_000  # of a page
# pdfium ends a line by CR LF, and by U+FFFE where it takes the hyphen before it for one of line breaking.
_LINE = re.compile("([^\r\n\ufffe\x02]*)(\ufffe|\x02|\r\n|\r|\n|$)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # glyphs without a mapping to Unicode come out as these


def read_pages(data: bytes, limits: Mapping[str, int]) -> Iterator[dict[str, object]]:
    """{"page": a Page} for each that can be loaded, {"lost": its number} for another, and {"title": …}.

    {"refused": [reason, what to do]} for a file that is not read. `limits`: max_pages, max_chars, max_lines.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as exc:
        if getattr(exc, "err_code", None) == _ERROR_PASSWORD:
            yield _refused("encrypted", "it wants a password; save it without one")
            return
        raise
    try:
        if document.get_formtype():
            document.init_forms()
        count = len(document)
        if count == 0:
            yield _refused("corrupt", "it has no pages")
            return
        if count > limits["max_pages"]:
            yield _refused("too large", f"it has {count} pages, the limit is {limits['max_pages']}; split it")
            return
        yield {"title": _title(document)}
        size = lines = 0
        for index in range(count):
            try:
                page = _read_page(document, index)
            except pypdfium2.PdfiumError:  # a page whose object is damaged; the others may be sound
                yield {"lost": index + 1}
                continue
            size, lines = size + sum(len(line.text) for line in page.lines), lines + len(page.lines)
            if lines > limits["max_lines"]:
                yield _refused("too large", f"it has more than {limits['max_lines']} lines; split it")
                return
            if size > limits["max_chars"]:
                yield _refused("too large", f"its text is longer than {limits['max_chars']} characters; split it")
                return
            yield {"page": page}
    finally:
        document.close()


def _title(document: pypdfium2.PdfDocument) -> str:
    try:
        return str(document.get_metadata_value("Title"))
    except UnicodeDecodeError:  # damaged; the text need not be
        return ""


def _refused(reason: str, detail: str) -> dict[str, object]:
    return {"refused": [reason, detail]}


def _read_page(document: pypdfium2.PdfDocument, index: int) -> Page:
    page, forms = document[index], document.formenv
    try:
        text_page = page.get_textpage()
        try:
            text = text_page.get_text_range()
            lines = tuple(_lines(text_page.raw, text))
        finally:
            text_page.close()
        if forms is not None:
            lines += tuple(Line(f"{name}: {value}" if name else value) for name, value in _fields(page.raw, forms.raw))
        return Page(index + 1, page.get_height(), lines)
    finally:
        page.close()


def _lines(text_page: object, text: str) -> Iterator[Line]:
    for match in _LINE.finditer(text):
        words = match[1]
        if words.strip():
            lead = len(words) - len(words.lstrip())
            first, last = match.start() + lead, match.start() + len(words.rstrip()) - 1
            shown = " ".join(_CONTROL.sub("", words).split())
            clean = shown.rstrip("\u00ad")
            if clean:
                hyphenated = match[2] in "\ufffe\x02" and bool(match[2])
                yield _line(text_page, clean, (first, last), hyphenated or clean != shown)


def _line(text_page: object, text: str, span: tuple[int, int], hyphenated: bool) -> Line:
    """The line between two characters of the page's text; without geometry where pdfium has none."""
    first, last = (pdfium.FPDFText_GetCharIndexFromTextIndex(text_page, index) for index in span)
    start, end = pdfium.FS_RECTF(), pdfium.FS_RECTF()
    if (
        min(first, last) < 0
        or not pdfium.FPDFText_GetLooseCharBox(text_page, first, start)
        or not pdfium.FPDFText_GetLooseCharBox(text_page, last, end)
    ):
        return Line(text, hyphenated)
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFText_GetMatrix(text_page, first, matrix)
    size = pdfium.FPDFText_GetFontSize(text_page, first) * math.hypot(matrix.c, matrix.d)
    middle = (first + last) // 2
    bold = all(pdfium.FPDFText_GetFontWeight(text_page, i) in range(600, 1001) for i in (first, middle, last))
    quarter = round(pdfium.FPDFText_GetCharAngle(text_page, first) / (math.pi / 2)) % 4
    left, bottom = min(start.left, end.left), min(start.bottom, end.bottom)
    right, top = max(start.right, end.right), max(start.top, end.top)
    if quarter == 1:  # turn the page so that the line lies flat
        left, bottom, right, top = bottom, -right, top, -left
    elif quarter == 2:
        left, bottom, right, top = -right, -top, -left, -bottom
    elif quarter == 3:
        left, bottom, right, top = -top, left, -bottom, right
    return Line(text, hyphenated, left, bottom, right, top, round(size, 1), bold, quarter)


def _fields(page: object, forms: object) -> Iterator[tuple[str, str]]:
    """The names and values of the form fields on a page; unset check boxes and empty fields have none."""
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MAX_FIELDS)):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            if pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_WIDGET:
                value = _chosen(forms, annotation) or _wide(pdfium.FPDFAnnot_GetFormFieldValue, forms, annotation)
                if value and value != "Off":
                    yield _wide(pdfium.FPDFAnnot_GetFormFieldName, forms, annotation), value
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _chosen(forms: object, annotation: object) -> str:
    """What a combo or list box shows as chosen; its value is but the name of that inside the form."""
    count = min(pdfium.FPDFAnnot_GetOptionCount(forms, annotation), _MAX_FIELDS)
    chosen = (i for i in range(count) if pdfium.FPDFAnnot_IsOptionSelected(forms, annotation, i))

    def label(index: int) -> str:
        return _wide(lambda f, a, b, n: pdfium.FPDFAnnot_GetOptionLabel(f, a, index, b, n), forms, annotation)

    return ", ".join(filter(None, map(label, chosen)))


def _wide(get: Callable[..., int], forms: object, annotation: object) -> str:
    """Call a function of pdfium that says how many bytes of UTF-16 it has, then writes them."""
    size = get(forms, annotation, None, 0)
    buffer = (pdfium.FPDF_WCHAR * (size // 2 + 1))()
    get(forms, annotation, buffer, size)
    return " ".join(_CONTROL.sub("", bytes(buffer)[: max(size - 2, 0)].decode("utf-16-le", "ignore")).split())


if __name__ == "__main__":
    serve(read_pages)
