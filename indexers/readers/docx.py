"""DOCX: paragraphs, tables, text boxes and footnotes in the body's order; headings by outline level."""

import io
import zipfile
from collections.abc import Iterable, Iterator

import docx
from docx.document import Document as WordDocument
from docx.exceptions import PythonDocxError
from docx.image.exceptions import InvalidImageStreamError, UnexpectedEndOfFileError, UnrecognizedImageError
from docx.opc.exceptions import OpcError
from docx.oxml.parser import parse_xml
from docx.oxml.xmlchemy import BaseOxmlElement
from lxml.etree import Error as LxmlError  # type: ignore[import-untyped]

from indexers.canonical import TextBuilder
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.package import check_package
from indexers.readers.table import write_grid

ERRORS = (
    PythonDocxError,
    OpcError,
    InvalidImageStreamError,
    UnexpectedEndOfFileError,
    UnrecognizedImageError,
    LxmlError,
    zipfile.BadZipFile,
    RuntimeError,
)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_FOOTNOTES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
_ENDNOTES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/endnotes"
_MAX_COLUMNS = 63  # of a table, by Word
_BODY_LEVEL = 9  # outline levels 0 to 8 are headings, 9 is body text
# Deleted text, field codes, properties, and the copy that older programs show instead of a text box.
_SKIPPED = {_W + name for name in ("del", "moveFrom", "instrText", "delText", "pPr", "rPr", "sectPr", "tblPr", "sdtPr")}
_SKIPPED.add(_MC + "Fallback")
_WORDS = {_W + "t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"}
_CHARACTERS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "\u2011"}


def read_docx(raw: Raw) -> Extracts:
    """One document, without headers, footers, comments, deleted text and the numbers that Word counts itself."""
    check_package(raw)
    with map_errors(raw, *ERRORS):
        document = docx.Document(io.BytesIO(raw.data))
        writer = _Writer(document, raw.builder())
        writer.write(document.element.body)
        builder = writer.builder
        if builder.empty:
            raise raw.refuse("no text", "the document holds no text")
        first = next((m.text for m in builder.marks if m.level == 1), None)
        yield Extract(builder.text, builder.marks, (document.core_properties.title, writer.title, first))


class _Writer:
    def __init__(self, document: WordDocument, builder: TextBuilder) -> None:
        self.builder = builder
        self.title = ""  # the first paragraph in the style Title
        self._levels, self._lists, self._titles = _styles(document)
        self._notes = _notes(document, _FOOTNOTES, "Footnote") | _notes(document, _ENDNOTES, "Endnote")

    def write(self, container: BaseOxmlElement) -> None:
        for element in _blocks(container):
            if element.tag == _W + "p":
                self._paragraph(element)
            else:
                self._table(element)

    def _paragraph(self, paragraph: BaseOxmlElement) -> None:
        text = _text(paragraph)
        style, own_level, in_list = _properties(paragraph)
        level = own_level if own_level is not None else self._levels.get(style, _BODY_LEVEL)
        if level < _BODY_LEVEL and text.strip():
            self.builder.heading(level + 1, text)
        else:
            self.builder.block(text, tight=in_list or style in self._lists)
        if style in self._titles and not self.title:
            self.title = " ".join(text.split())
        for box in _descendants(paragraph, {_W + "txbxContent"}):
            self.write(box)
        self._write_notes([paragraph])

    def _table(self, table: BaseOxmlElement) -> None:
        write_grid([list(_cells(row)) for row in _descendants(table, {_W + "tr"})], self.builder)
        self._write_notes([table])

    def _write_notes(self, elements: Iterable[BaseOxmlElement]) -> None:
        """A note follows the paragraph that refers to it, where it shares its page and heading."""
        for element in elements:
            for reference in element.iter(_W + "footnoteReference", _W + "endnoteReference"):
                kind = "Footnote" if reference.tag == _W + "footnoteReference" else "Endnote"
                note = self._notes.pop((kind, reference.get(_W + "id") or ""), "")
                if note:
                    self.builder.block(note)


def _blocks(container: BaseOxmlElement) -> Iterator[BaseOxmlElement]:
    """Paragraphs and tables in order, also those inside content controls and insertions."""
    return _descendants(container, {_W + "p", _W + "tbl"})


def _descendants(root: BaseOxmlElement, tags: set[str]) -> Iterator[BaseOxmlElement]:
    """The outermost elements with these tags below root, in document order."""
    stack = list(reversed(root))
    while stack:
        element = stack.pop()
        if element.tag in tags:
            yield element
        elif element.tag not in _SKIPPED and isinstance(element.tag, str):
            stack.extend(reversed(element))


def _text(paragraph: BaseOxmlElement) -> str:
    """The words of one paragraph, without those of text boxes that hang on it."""
    parts: list[str] = []
    stack = list(reversed(paragraph))
    while stack:
        element = stack.pop()
        if element.tag in _WORDS:
            parts.append(element.text or "")
        elif element.tag in _CHARACTERS:
            parts.append(_CHARACTERS[element.tag])
        elif element.tag not in _SKIPPED and element.tag != _W + "txbxContent":
            stack.extend(reversed(element))
    return "".join(parts)


def _cells(row: BaseOxmlElement) -> Iterator[str]:
    """The words of a row's cells; one that spans columns has empty ones after it, so that the next are in theirs."""
    for cell in _descendants(row, {_W + "tc"}):
        yield " ".join(_deep_text(cell).split())
        span = cell.find(f"{_W}tcPr/{_W}gridSpan")
        value = (span.get(_W + "val") or "") if span is not None else ""
        yield from [""] * (min(int(value), _MAX_COLUMNS) - 1 if value.isdecimal() else 0)


def _deep_text(cell: BaseOxmlElement) -> str:
    """The words of everything in a cell, nested tables too."""
    parts: list[str] = []
    stack = list(reversed(cell))
    while stack:
        element = stack.pop()
        if element.tag == _W + "p":
            parts.append(_text(element))
        if element.tag not in _SKIPPED:
            stack.extend(reversed(element))
    return " ".join(parts)


def _properties(paragraph: BaseOxmlElement) -> tuple[str, int | None, bool]:
    """A paragraph's style id, its own outline level, and whether it numbers itself."""
    properties = paragraph.find(_W + "pPr")
    if properties is None:
        return "", None, False
    style = properties.find(_W + "pStyle")
    return (
        (style.get(_W + "val") or "") if style is not None else "",
        _outline_level(properties),
        properties.find(_W + "numPr") is not None,
    )


def _outline_level(properties: BaseOxmlElement | None) -> int | None:
    level = properties.find(_W + "outlineLvl") if properties is not None else None
    value = level.get(_W + "val") if level is not None else None
    return int(value) if value and value.isdecimal() else None


def _styles(document: WordDocument) -> tuple[dict[str, int], set[str], set[str]]:
    """Style ids to outline levels, and the ids of list and title styles.

    Ids are localised ("berschrift1"); the built-in names "heading 1" and the outline level are not. A style without a
    level has that of the style it is based on.
    """
    based: dict[str, str] = {}
    levels: dict[str, int] = {}
    lists: set[str] = set()
    titles: set[str] = set()
    for style in document.styles.element.iter(_W + "style"):
        style_id = style.get(_W + "styleId") or ""
        name_element, base, properties = (style.find(_W + tag) for tag in ("name", "basedOn", "pPr"))
        name = ((name_element.get(_W + "val") if name_element is not None else "") or "").lower()
        level = _outline_level(properties)
        if level is None and name.startswith("heading ") and name[8:].isdecimal():
            level = int(name[8:]) - 1
        if level is not None:
            levels[style_id] = level
        if base is not None:
            based[style_id] = base.get(_W + "val") or ""
        if name.startswith("list"):
            lists.add(style_id)
        if name == "title":
            titles.add(style_id)
    for style_id in based:
        ancestor, seen = style_id, {style_id}
        while ancestor not in levels and (ancestor := based.get(ancestor, "")) and ancestor not in seen:
            seen.add(ancestor)
        if ancestor in levels:
            levels[style_id] = levels[ancestor]
    return levels, lists, titles


def _notes(document: WordDocument, kind: str, label: str) -> dict[tuple[str, str], str]:
    """The words of foot- or endnotes by label and id; separators, which have a type, are none."""
    notes: dict[tuple[str, str], str] = {}
    for relation in document.part.rels.values():
        if relation.reltype == kind and not relation.is_external:
            for note in parse_xml(relation.target_part.blob):
                words = " ".join(" ".join(_text(p) for p in note.iter(_W + "p")).split())
                if words and note.get(_W + "type") in (None, "normal"):
                    notes[label, note.get(_W + "id") or ""] = f"{label}: {words}"
    return notes
