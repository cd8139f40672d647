"""Markdown: the text is the source itself, so that quotes look like it; front matter gives title and metadata."""

import re
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from indexers.base import Mark
from indexers.canonical import canonical
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.encoding import decode
from indexers.readers.text import replaced

_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?\n)??\1[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"(?:#.*\n)*[\"']?[\w.-]+[\"']?[ \t]*[:=](?:\s|\Z)")
_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.+?)[ \t]*$", re.MULTILINE | re.IGNORECASE)

_HEADING_CHARS = 1000  # beyond it inline markup is not looked at: nested brackets take the square of their number

# Only the block grammar is run over the whole text: inline markup matters in headings alone.
_BLOCKS = MarkdownIt("commonmark")
_BLOCKS.disable("reference")  # definitions are no headings, and many take the square of their number
_BLOCKS.core.ruler.enableOnly(["normalize", "block"])
_INLINE = MarkdownIt("commonmark")


def read_markdown(raw: Raw) -> Extracts:
    """One document; heading marks stand at the heading's line. A '#' in code is no heading."""
    decoded = decode(raw)
    yield from replaced(raw, decoded)
    text = canonical(decoded.text).lstrip("\ufeff")
    title, text = _front_matter(text)
    text = text.strip("\n").rstrip()
    if not text.strip():
        raise raw.refuse("empty", "it holds nothing but white space")
    with map_errors(raw):
        marks = _headings(text)
    first = next((m.text for m in marks if m.level == 1), None)
    yield Extract(text, marks, (title, first))


def _front_matter(text: str) -> tuple[str | None, str]:
    match = _FRONT_MATTER.match(text)
    if match is None or not _FIELD.match(match[2] or ""):  # a rule as the first line is no front matter
        return None, text
    title = _TITLE.search(match[2] or "")
    return (title[1].strip("\"'") or None) if title else None, text[match.end() :]


def _headings(text: str) -> tuple[Mark, ...]:
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    marks: list[Mark] = []
    tokens = _BLOCKS.parse(text)
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            words = " ".join(_plain(_INLINE.parseInline(content.content[:_HEADING_CHARS])).split())
            if words:
                marks.append(Mark("heading", starts[token.map[0]], int(token.tag[1]), words))
    return tuple(marks)


def _plain(tokens: list[Token]) -> str:
    """The words of inline tokens without their markup."""
    parts: list[str] = []
    for token in tokens:
        if token.children:
            parts.append(_plain(token.children))
        elif token.type in ("text", "code_inline"):
            parts.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)
