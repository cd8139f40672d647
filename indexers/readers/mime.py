"""A mail's bytes to a tree of MIME parts, within bounds, and its headers to words.

By the standard library's parser, which has no bounds of its own. Under its newer policies it reads each header by a
grammar, in a time that grows with the square of the header's length; the older one (compat32) leaves that to us.
"""

import codecs
import re
from dataclasses import dataclass
from email.errors import CloseBoundaryNotFoundDefect, MessageError
from email.header import decode_header
from email.message import Message
from email.parser import BytesFeedParser
from email.policy import Compat32
from pathlib import PurePosixPath

from indexers.base import UnreadableError
from indexers.canonical import canonical
from indexers.readers.base import Raw
from indexers.readers.encoding import decode

MAX_DEPTH = 30  # each line is held against the boundaries of all parts that are open
MAX_PARTS = 1_000
_BLOCK_BYTES = 1 << 16
# Beyond these a header is cut: the parameters of the one kind take the square of their number.
_MAX_PARAMETER_CHARS, _MAX_HEADER_CHARS = 1 << 11, 1 << 16
_MAX_NAME_CHARS = 200
_ENCODED = r"=\?[^?\s]*\?[bBqQ]\?[^?\r\n]*\?="
_ENCODED_WORDS = re.compile(rf"{_ENCODED}(?:\s*{_ENCODED})*")
# A line of two hyphens and a header under it, where the declared boundary does not occur.
_FOUND_BOUNDARY = re.compile(rb"^--([^\s\"\\][^\r\n\"\\]{0,68}?)[ \t]*\r?\n[Cc]ontent-[A-Za-z-]+:", re.MULTILINE)


@dataclass(slots=True)
class Budget:
    """What all parts of one file may be, those of mails within mails included."""

    raw: Raw
    parts: int = MAX_PARTS
    lines: int = 0

    def take(self, depth: int) -> None:
        self.parts -= 1
        if self.parts < 0:
            raise self.raw.refuse("too large", f"it has more than {MAX_PARTS} parts; split it")
        if depth > MAX_DEPTH:
            raise self.raw.refuse("too large", f"its parts are nested deeper than {MAX_DEPTH}")

    def count_lines(self, data: bytes) -> None:
        """Lines cost the parser most: some 100 bytes and 4 µs each."""
        most = self.raw.limits.max_lines
        self.lines += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
        if self.lines > most:
            raise self.raw.refuse("too large", f"it has more than {most} lines; split it")


class _AsWritten(Compat32):
    """Headers as they stand; bytes beyond ASCII, which should not be there, as surrogates."""

    def header_fetch_parse(self, name: str, value: str) -> str:
        return value


_POLICY = _AsWritten()


class Part(Message):
    """A part that knows its depth, and counts those that it is given."""

    def __init__(self, budget: Budget, depth: int) -> None:
        super().__init__(policy=_POLICY)
        self.budget, self.depth = budget, depth

    def attach(self, payload: "Part") -> None:  # type: ignore[override]
        payload.depth = self.depth + 1
        self.budget.take(payload.depth)
        super().attach(payload)

    def set_raw(self, name: str, value: str) -> None:
        most = _MAX_PARAMETER_CHARS if name.lower().startswith("content-") else _MAX_HEADER_CHARS
        super().set_raw(name, value[:most])

    @property
    def children(self) -> list["Part"]:
        return [part for part in self.get_payload() if isinstance(part, Part)] if self.is_multipart() else []

    @property
    def data(self) -> bytes:
        """A leaf's bytes, decoded from base64 or quoted-printable."""
        data = self.get_payload(decode=True)
        return data if isinstance(data, bytes) else b""

    def charset_of(self, data: bytes) -> str | None:
        """The charset that it declares, unless its bytes, `data`, say that this is wrong: UTF-8 passes for most code
        pages."""
        label = self.parameter("charset")
        try:
            name = codecs.lookup(label).name
            if (name == "ascii" and not data.isascii()) or (
                name.startswith(("utf-16", "utf-32")) and b"\0" not in data
            ):
                return None
            if not data.isascii() and len(bytes(range(128, 256)).decode(name, "replace")) == 128:  # one byte a letter
                data.decode("utf-8")
                return "utf-8"
        except (LookupError, ValueError):
            pass
        return label or None

    @property
    def is_attached(self) -> bool:
        return self.get_content_disposition() == "attachment"

    @property
    def name(self) -> str:
        """The name of the file that it is, without folders; "" if it has none."""
        name = self.words(self.parameter("filename", "content-disposition") or self.parameter("name"))
        return canonical(PurePosixPath(name.replace("\\", "/")).name)[-_MAX_NAME_CHARS:].strip()

    def parameter(self, name: str, header: str = "content-type") -> str:
        """A header's parameter, "" if there is none."""
        try:
            value = self.get_param(name, "", header)
            if isinstance(value, tuple):  # RFC 2231: charset, language, words
                charset, _, words = value
                return self._decoded(words.encode("latin-1", "replace"), charset)
        except (ValueError, LookupError, TypeError, AttributeError):  # of damaged parameters
            return ""
        return value if isinstance(value, str) else ""

    def header(self, name: str) -> str:
        """A header's words on one line, "" if there is none."""
        return self.words(next((value for key, value in self.raw_items() if key.lower() == name), ""))

    def words(self, value: str) -> str:
        """What a header says: its encoded words, and bytes that should have been encoded, decoded."""
        if not value.isascii():
            value = self._decoded(value.encode("utf-8", "surrogateescape"), None)
        return " ".join(_ENCODED_WORDS.sub(lambda match: self._encoded(match[0]), value).split())

    def _encoded(self, words: str) -> str:
        try:
            pieces = decode_header(words)
        except (MessageError, ValueError):
            return words
        return "".join(
            self._decoded(piece, (charset or "").split("*")[0]) if isinstance(piece, bytes) else piece
            for piece, charset in pieces
        )

    def _decoded(self, data: bytes, charset: str | None) -> str:
        raw = self.budget.raw
        try:
            return decode(Raw(data, raw.uri, raw.limits, charset)).text
        except UnreadableError:
            return data.decode("utf-8", "replace")


def parse(data: bytes, budget: Budget, depth: int = 0) -> Part:
    """The message. Raises UnreadableError("too large") for too many lines, parts, or levels of them."""
    budget.take(depth)
    budget.count_lines(data)
    parser = BytesFeedParser(lambda: Part(budget, depth), policy=_POLICY)
    data = data.removeprefix(codecs.BOM_UTF8).lstrip()
    for at in range(0, len(data), _BLOCK_BYTES):
        parser.feed(data[at : at + _BLOCK_BYTES])
    message = parser.close()
    assert isinstance(message, Part)
    return message


def attached_message(part: Part) -> Part:
    """The mail in a part of type message/rfc822, which some programs encode against the rule."""
    inner = part.children[0]
    coding = part.header("content-transfer-encoding").lower()
    if inner.keys() or coding not in ("base64", "quoted-printable"):
        return inner
    wrapped = Part(part.budget, part.depth)
    wrapped["Content-Transfer-Encoding"] = coding
    wrapped.set_payload(inner.get_payload())
    return parse(wrapped.data, part.budget, inner.depth)


def found_parts(part: Part) -> Part | None:
    """A multipart whose declared boundary does not occur, by the boundary that does; None if there is none."""
    data = part.data
    boundary = _FOUND_BOUNDARY.search(data)
    if boundary is None:
        return None
    head = b'Content-Type: multipart/mixed; boundary="' + boundary[1] + b'"\n\n'
    found = parse(head + data, part.budget, part.depth)
    return found if found.children else None


def unended(part: Part) -> Part | None:
    """The last leaf, if a multipart that it ends lacks its closing boundary."""
    is_open = False
    while part.children:
        is_open |= any(isinstance(defect, CloseBoundaryNotFoundDefect) for defect in part.defects)
        part = part.children[-1]
    return part if is_open else None


def unflowed(text: str, *, without_space: bool = False) -> str:
    """The paragraphs of format=flowed (RFC 3676): a line that ends in a space goes on in the next of its quote.

    `without_space`: that space is the format's own (DelSp=yes).
    """
    paragraphs: list[list[str]] = []
    goes_on, depth = False, -1
    for line in canonical(text).split("\n"):
        words = line.lstrip(">")
        quotes, words = len(line) - len(words), words.removeprefix(" ")
        is_signature = words == "-- "
        if not (goes_on and quotes == depth and not is_signature):
            paragraphs.append([">" * quotes + " "] if quotes else [])
        goes_on, depth = words.endswith(" ") and not is_signature, quotes
        paragraphs[-1].append(words[:-1] if goes_on and without_space else words)
    return "\n".join(map("".join, paragraphs))
