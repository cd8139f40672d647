"""PPTX: a slide is a page, its title a heading; text, tables, groups, charts and notes in order."""

import io
import zipfile
from collections.abc import Iterable, Iterator

import pptx
from lxml.etree import Error as LxmlError  # type: ignore[import-untyped]
from pptx.chart.chart import Chart
from pptx.exc import PythonPptxError
from pptx.oxml.xmlchemy import BaseOxmlElement
from pptx.shapes.base import BaseShape
from pptx.slide import Slide
from pptx.table import Table

from indexers.base import UnreadableError
from indexers.canonical import TextBuilder
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.package import check_package
from indexers.readers.table import write_grid

ERRORS = (PythonPptxError, LxmlError, zipfile.BadZipFile)
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_MARGINAL = {"DATE", "FOOTER", "SLIDE_NUMBER", "HEADER"}


def read_pptx(raw: Raw) -> Extracts:
    """One document. Text inside pictures and SmartArt is left out; so are slide numbers, dates and footers."""
    check_package(raw)
    with map_errors(raw, *ERRORS):
        presentation = pptx.Presentation(io.BytesIO(raw.data))
        builder = raw.builder()
        for number, slide in enumerate(presentation.slides, start=1):
            yield from _write_slide(raw, slide, number, builder)
        if builder.empty:
            raise raw.refuse("no text", "none of its slides holds text")
        first = next((m.text for m in builder.marks if m.kind == "heading"), None)
        yield Extract(builder.text, builder.marks, (presentation.core_properties.title, first))


def _write_slide(raw: Raw, slide: Slide, number: int, builder: TextBuilder) -> Iterator[UnreadableError]:
    """Write a slide; a chart that cannot be read is reported."""
    _choose(slide.shapes.element)
    title = slide.shapes.title
    words = " ".join(title.text_frame.text.split()) if title is not None else ""
    builder.page(number, words)
    builder.heading(1, words)
    for shape in _flat(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            _write_shape(shape, builder)
            if getattr(shape, "has_chart", False):
                try:
                    with map_errors(raw, *ERRORS):
                        _write_chart(shape.chart, builder)
                except UnreadableError as failure:
                    if failure.reason != "corrupt":
                        raise
                    yield raw.refuse("corrupt", f"the chart {shape.name!r} on slide {number}: {failure.detail}")
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None and notes.text.strip():
        builder.block("Notes: " + _lines(notes.text))


def _choose(tree: BaseOxmlElement) -> None:
    """Put the shapes of each alternative in its place: the choice for newer programs, else what older ones show."""
    for alternative in list(tree.iter(f"{_MC}AlternateContent")):  # the outer ones first
        for name in ("Choice", "Fallback"):
            branch = alternative.find(_MC + name)
            if branch is not None and len(branch):
                for child in list(branch):
                    alternative.addprevious(child)
                break
        alternative.getparent().remove(alternative)


def _flat(shapes: Iterable[BaseShape]) -> Iterator[BaseShape]:
    """Shapes in the slide's order, those in groups in the group's place."""
    stack = list(shapes)[::-1]
    while stack:
        shape = stack.pop()
        inner = getattr(shape, "shapes", None)
        if inner is not None:
            stack.extend(list(inner)[::-1])
        else:
            yield shape


def _write_shape(shape: BaseShape, builder: TextBuilder) -> None:
    kind = shape.placeholder_format.type if shape.is_placeholder else None
    if kind is not None and kind.name in _MARGINAL:
        return
    if shape.has_text_frame:
        builder.block(_lines(shape.text_frame.text))
    elif getattr(shape, "has_table", False):
        _write_table(shape.table, builder)


def _write_table(table: Table, builder: TextBuilder) -> None:
    """A line a row; a cell that another one covers is empty, so that those after it stay in their columns."""
    rows = [["" if cell.is_spanned else cell.text_frame.text for cell in row.cells] for row in table.rows]
    write_grid([[" ".join(cell.split()) for cell in row] for row in rows], builder)


def _write_chart(chart: Chart, builder: TextBuilder) -> None:
    """A line for each series, of whatever kind of chart: "Sales: Q1 1.5, Q2 2".

    From the points that are there, not by the library's properties: these make as many as the file claims, in a time
    that grows with the square, and know no 3-D charts.
    """
    builder.gap()
    if chart.has_title and chart.chart_title.has_text_frame:
        builder.block(chart.chart_title.text_frame.text, tight=True)
    for plot in chart.element.xpath("c:chart/c:plotArea/*[c:ser]"):
        categories: dict[int, str] = {}
        for series in plot.findall(f"{_C}ser"):
            # of categories on several levels the first is the finest
            found = _points(series, "c:cat//c:lvl[1]/c:pt | c:cat/*/*[not(self::c:lvl)]/c:pt | c:xVal//c:pt")
            categories = found or categories
            values = _points(series, "c:val//c:pt | c:yVal//c:pt")
            shown = ", ".join(
                f"{categories.get(at, '')} {_short(value)}".strip() for at, value in sorted(values.items())
            )
            name = next(iter(_points(series, "c:tx//c:pt").values()), "")
            builder.block(f"{name}: {shown}" if name else shown, tight=True)


def _short(value: str) -> str:
    """A number without what the program that computed it was unsure of; "#N/A" as it is."""
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value


def _points(series: BaseOxmlElement, path: str) -> dict[int, str]:
    """The points at a path as they are written, by their places."""
    return {int(point.get("idx")): point.findtext(f"{_C}v", "") for point in series.xpath(path)}


def _lines(text: str) -> str:
    """A frame's paragraphs on lines of their own; a vertical tab is a line break inside one."""
    lines = (" ".join(line.split()) for line in text.replace("\v", "\n").split("\n"))
    return "\n".join(line for line in lines if line)
