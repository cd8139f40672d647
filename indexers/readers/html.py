"""HTML: block elements as paragraphs, h1 to h6 as headings, a table row a line; scripts, styles and menus left out."""

import re

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

from indexers.canonical import TextBuilder
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.encoding import decode
from indexers.readers.table import write_grid
from indexers.readers.text import replaced

_META_CHARSET = re.compile(rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_.:-]+)", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([a-zA-Z0-9_.:-]+)")
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# What the parser takes for words, unless it stands inside <svg> or <math>.
_SCRIPTS = re.compile(r"<(script|style)\b.*?(?=</\1|\Z)|<!--.*?(?=-->|\Z)", re.IGNORECASE | re.DOTALL)
_FOREIGN = re.compile(r"<(?:svg|math)\b", re.IGNORECASE)
_UNSEEN = re.compile(r"(?:^|;)\s*display\s*:\s*none\b", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\r\f\v\u00a0]+")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DROPPED = _names(
    "script style nav template noscript head svg math iframe object embed audio video canvas select button"
)
# What wikis and documentation generators put into headings and above the text for the mouse alone.
_DROPPED_CLASSES = _names(
    "mw-editsection mw-jump-link mw-portlet vector-dropdown noprint headerlink toc-toggle sr-only-focusable"
)
_BLOCKS = _names(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure "
    "footer form header hgroup hr html legend li main menu ol p pre search section summary table tbody td tfoot th "
    "thead tr ul"
)
_TIGHT = _names("li tr dt dd option")
_ROW_GROUPS = _names("thead tbody tfoot")  # beyond which no cell reaches
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LABELS = {*_HEADINGS, "summary", "dt"}  # whose button is what they say
VOID = _names("area base br col embed hr img input link meta param source track wbr")
_OPTIONAL_END = _names("p li dt dd tr td th option optgroup thead tbody tfoot colgroup html head body rt rp rb rtc")
_MAX_SPAN = 65_534  # columns or rows that a cell may take (HTML standard), …
_MAX_COVERED = 1_000_000  # … and cells that all of a page's may cover
_FORMATTING = _names("a b big code em font i nobr s small strike strong tt u")


def read_html(raw: Raw) -> Extracts:
    """One document. The charset is that of the byte order mark, the transport, <meta>, or found by detection."""
    head = raw.data[:4096]
    declared = _META_CHARSET.search(head) or _XML_ENCODING.search(head)
    decoded = decode(raw, declared[1].decode("ascii") if declared else None)
    yield from replaced(raw, decoded)
    _check_depth(raw, decoded.text)
    with map_errors(raw):
        # Without events: they copy a <select>'s option at every other one, the square of their number in time.
        tree = LexborHTMLParser(decoded.text, options=LexborDocumentOptions.WO_EVENTS)
        writer = _Writer(raw.builder())
        if tree.root is not None:
            writer.write(tree.root)
        builder = writer.builder
        if builder.empty:
            raise raw.refuse("no text", "the page holds no text outside scripts and menus")
        title = tree.css_first("head > title")
        words = _SPACE.sub(" ", title.text()).strip() if title is not None else ""
        first = next((m.text for m in builder.marks if m.level == 1), None)
        yield Extract(builder.text, builder.marks, (words, first))


def _check_depth(raw: Raw, html: str) -> None:
    """Refuse pages that cost the parser the square of their length: deep nesting, and formatting left open."""
    depth = formatting = reopened = 0
    for match in _TAG.finditer(_SCRIPTS.sub("", html) if not _FOREIGN.search(html) else html):
        name = match[2].lower()
        if name in VOID or name in _OPTIONAL_END:
            reopened += formatting  # a paragraph reopens every <b> and <font> that is still open
        elif match[1]:
            depth = max(depth - 1, 0)
            formatting = max(formatting - (name in _FORMATTING), 0)
        else:
            depth += 1
            formatting += name in _FORMATTING
        if depth > raw.limits.max_depth or reopened > 5_000_000:
            raise raw.refuse("too large", f"its elements are nested deeper than {raw.limits.max_depth}")


def _is_dropped(node: LexborNode, tag: str, panels: set[str]) -> bool:
    if tag in _DROPPED:
        return True
    attributes = node.attributes
    if not attributes:
        return False
    if attributes.get("role") == "navigation":
        return True
    if attributes.get("id") not in panels and (
        attributes.get("hidden", "until-found") != "until-found"
        or attributes.get("aria-hidden") == "true"
        or (tag not in ("html", "body") and _UNSEEN.search(attributes.get("style") or ""))  # until a script has run
    ):
        return True
    classes = (attributes.get("class") or "").split()
    return not _DROPPED_CLASSES.isdisjoint(classes) or (tag == "sup" and "reference" in classes)


def _panels(root: LexborNode) -> set[str]:
    """The ids of what buttons open: hidden until someone asks for it, but no less a part of the page."""
    opened = (node.attributes.get("aria-controls") or "" for node in root.css("button[aria-controls]"))
    return {name for names in opened for name in names.split()}


def _span(cell: LexborNode, name: str) -> int:
    """How many columns or rows a cell takes; 0, "to the end", and what is no number are 1."""
    value = (cell.attributes.get(name) or "").strip()[:9]
    return max(1, min(int(value), _MAX_SPAN)) if value.isascii() and value.isdecimal() else 1


class _Writer:
    """Collects the words of the block that is open and hands it to the builder when it ends."""

    def __init__(self, builder: TextBuilder) -> None:
        self.builder = builder
        self._words: list[str] = []
        self._tight = False
        self._pre = 0
        self._heading = 0
        self._in_row = False  # of a table of data, whose cells go on one line
        self._tables: list[bool] = []  # whether each open table is one of data
        self._labels: list[str] = []  # for each open heading, summary or dt the words of the outermost
        self._panels: set[str] = set()
        self._rows: list[list[str]] = []  # of the table of data that is open
        self._spans: list[tuple[int, int]] = []  # how many columns and rows each cell of the open row takes
        self._covered: dict[int, int] = {}  # for how many rows more a column is taken by a cell above
        self._empty = _MAX_COVERED  # cells in the places of others that may still be made

    def write(self, root: LexborNode) -> None:
        """Walk the tree without recursion, whatever its depth; dropped subtrees are passed by."""
        self._panels = _panels(root)
        node: LexborNode | None = root
        open_nodes: list[tuple[LexborNode, str]] = []
        while node is not None:
            child = None
            if node.is_text_node:
                self._words.append(node.text_content or "")
            elif node.is_element_node and (
                not _is_dropped(node, tag := node.tag or "", self._panels) or (tag == "button" and self._is_label(node))
            ):
                self._open(node, tag)
                if (child := node.first_child) is not None:
                    open_nodes.append((node, tag))
                else:
                    self._close(tag)
            following = child or node.next
            while following is None and open_nodes:
                node, tag = open_nodes.pop()
                self._close(tag)
                following = node.next
            node = following
        self._flush()

    def _is_label(self, button: LexborNode) -> bool:
        """Whether the button is what a heading says (an accordion's question) and no copy or permalink button in it."""
        if not self._labels:
            return False
        return "aria-expanded" in button.attributes or button.text().strip() == self._labels[-1]

    def _open(self, node: LexborNode, tag: str) -> None:
        if tag in _LABELS:
            self._labels.append(self._labels[-1] if self._labels else node.text().strip())
        if tag == "br":
            self._words.append("\x00" if not self._in_row else " ")
        elif tag == "table":
            self._flush()
            self.builder.gap()
            self._tables.append(node.css_first("table table, h1, h2, h3, h4, h5, h6, pre") is None)
        elif self._in_row:
            if tag in ("td", "th"):
                self._words.append("\x00")
                self._spans.append((_span(node, "colspan"), _span(node, "rowspan")))
            elif tag in _BLOCKS:
                self._words.append(" ")
        elif tag in _HEADINGS:
            self._flush()
            self._heading = _HEADINGS[tag]
        elif tag in _BLOCKS:
            self._flush()
            self._tight = tag in _TIGHT
            self._pre += tag == "pre"
            if tag == "tr" and self._tables and self._tables[-1]:
                self._in_row = True

    def _close(self, tag: str) -> None:
        if tag in _LABELS:
            self._labels.pop()
        if tag == "table":
            self._flush()
            self._write_rows()
            if self._tables:
                self._tables.pop()
        elif self._in_row:
            if tag in _BLOCKS:
                self._words.append(" ")
            if tag == "tr":
                self._rows.append(self._row())
                self._in_row = False
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._flush()
            self._heading = 0
            self._pre = max(self._pre - (tag == "pre"), 0)
            if tag in _ROW_GROUPS:
                self._covered = {}

    def _row(self) -> list[str]:
        """The open row's cells, each in its column: what a cell covers beside and below it is empty."""
        cells = [_SPACE.sub(" ", cell).strip() for cell in "".join(self._words).split("\x00")]
        spans = [(1, 1), *self._spans]
        if not cells[0]:  # what stands before the first cell, mostly nothing
            cells, spans = cells[1:], spans[1:]
        self._words.clear()
        self._spans = []
        row: list[str] = []
        below = {column: rows - 1 for column, rows in self._covered.items() if rows > 1}
        self._empty -= len(self._covered)
        for text, (columns, rows) in zip(cells, spans, strict=False):
            while len(row) in self._covered:
                row.append("")
            if self._empty < columns:
                columns, rows = 1, 1
            self._empty -= columns - 1
            if rows > 1:
                below |= dict.fromkeys(range(len(row), len(row) + columns), rows - 1)
            row += [text, *[""] * (columns - 1)]
        self._covered = below if self._empty > 0 else {}
        return row

    def _write_rows(self) -> None:
        self._covered = {}
        if self._rows:
            write_grid(self._rows, self.builder)
            self._rows = []

    def _flush(self) -> None:
        text = "".join(self._words)
        self._words.clear()
        tight, self._tight = self._tight, False
        if text.strip():
            self._write_rows()
        if self._pre:
            self.builder.block(text.replace("\x00", "\n"), strip=False)
            return
        text = "\n".join(_SPACE.sub(" ", line).strip() for line in text.split("\x00")).strip(" \n|")
        if self._heading:
            self.builder.heading(self._heading, text)
        else:
            self.builder.block(text, tight=tight)
