"""Which formats are read, and which one a source has: by its content first, then by its name."""

import hashlib
import io
import platform
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import PurePosixPath

from indexers.base import UnreadableError


@dataclass(frozen=True, slots=True)
class Format:
    """A format's reader: `version` rises when its text or marks change, `library` makes them with it.

    `library` "python" is the standard library. `inner`: formats whose readers it calls for what a file holds.
    """

    name: str
    version: int
    library: str
    media_type: str
    extensions: tuple[str, ...]
    is_text: bool = False
    inner: tuple["Format", ...] = ()

    @property
    def extractor(self) -> str:
        """The fingerprint of what reads it: "pdf-1+pypdfium2-5.15.2"; with inner formats also a digest of theirs."""
        own = f"{self.name}-{self.version}+{self.library}-{_installed(self.library)}"
        return f"{own}+{_digest(self.inner)}" if self.inner else own


@cache
def _installed(library: str) -> str:
    if library == "python":
        return platform.python_version()
    return version(library)  # parses the package's METADATA: a tenth of what a short document costs


@cache
def _digest(formats: tuple[Format, ...]) -> str:
    return hashlib.sha256(" ".join(format.extractor for format in formats).encode()).hexdigest()[:8]


_OFFICE = "application/vnd.openxmlformats-officedocument."
PDF = Format("pdf", 3, "pypdfium2", "application/pdf", (".pdf",))
DOCX = Format("docx", 2, "python-docx", _OFFICE + "wordprocessingml.document", (".docx",))
PPTX = Format("pptx", 3, "python-pptx", _OFFICE + "presentationml.presentation", (".pptx",))
XLSX = Format("xlsx", 2, "openpyxl", _OFFICE + "spreadsheetml.sheet", (".xlsx",))
HTML = Format("html", 5, "selectolax", "text/html", (".html", ".htm", ".xhtml"), is_text=True)
MARKDOWN = Format("markdown", 4, "markdown-it-py", "text/markdown", (".md", ".markdown", ".mdown"), is_text=True)
CSV = Format("csv", 3, "chardet", "text/csv", (".csv", ".tsv", ".tab"), is_text=True)
JSON = Format("json", 3, "chardet", "application/json", (".json",), is_text=True)
JSONL = Format("jsonl", 3, "chardet", "application/x-ndjson", (".jsonl", ".ndjson"), is_text=True)
TEXT = Format("text", 3, "chardet", "text/plain", (".txt", ".text", ".log", ".rst", ".adoc"), is_text=True)
EPUB = Format("epub", 1, "lxml", "application/epub+zip", (".epub",), inner=(HTML,))
_ALONE = (PDF, DOCX, PPTX, XLSX, HTML, MARKDOWN, CSV, JSON, JSONL, TEXT, EPUB)
EML = Format("eml", 1, "python", "message/rfc822", (".eml",), inner=_ALONE)
FORMATS = (*_ALONE, EML)

_BY_EXTENSION = {extension: format for format in FORMATS for extension in format.extensions}
_BY_MEDIA_TYPE = {format.media_type: format for format in FORMATS} | {
    "application/jsonl": JSONL,
    "application/xhtml+xml": HTML,
    "text/tab-separated-values": CSV,
    "text/x-markdown": MARKDOWN,
}
_MAIN_PARTS = {b"wordprocessingml.document.main+xml": DOCX, b"presentationml.presentation.main+xml": PPTX,
               b"spreadsheetml.sheet.main+xml": XLSX}  # fmt: skip
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Office wrote before 2007, and puts around an encrypted package
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"), (b"MM\0*", "a TIFF image"), (b"RIFF", "a WebP image, sound or film"),
    (b"\x1f\x8b", "a gzip archive"), (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ\0", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x7fELF", "a program"), (b"SQLite format 3\0", "a SQLite database"), (b"{\\rtf", "an RTF document"),
    (b"ID3", "sound"), (b"\0\0\0\x18ftyp", "a film"), (b"\0\0\0\x20ftyp", "a film"), (b"OggS", "sound"),
)  # fmt: skip
_HTML = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype html|html)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(rb"(?:From [^\n]*\n)?[!-9;-~]+[ \t]*:")
_MAIL_HEADER = re.compile(
    rb"^(?:from|to|cc|subject|date|sender|received|return-path|message-id|mime-version|content-type)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_BODY = re.compile(rb"\r?\n\r?\n|\r\r")
_HEAD_BYTES = 1 << 16


@cache
def extractors() -> frozenset[str]:
    """The fingerprints of all readers as they are now."""
    return frozenset(format.extractor for format in FORMATS)


def find_format(data: bytes, uri: str, media_type: str | None = None) -> Format:
    """The format to read a source as; the name's ending goes before the media type that came with it.

    Raises UnreadableError: "empty", "type mismatch" where content and name contradict each other, "encrypted",
    "corrupt" for a damaged package, "unsupported".
    """
    if not data:
        raise UnreadableError(uri, "empty", "it has no bytes")
    extension = PurePosixPath(uri.lower()).suffix
    mime = (media_type or "").split(";")[0].strip().lower()
    named = _BY_EXTENSION.get(extension) or _BY_MEDIA_TYPE.get(mime)
    found = _by_content(data, uri, named)
    if found is not None:
        if named is not None and named is not found:
            raise UnreadableError(uri, "type mismatch", f"it is {found.name.upper()} under another name; rename it")
        return found
    looks_html = _HTML.match(data[:4096]) is not None
    if named is None:
        if looks_html:
            return HTML
        if not extension or mime.startswith("text/"):
            return TEXT
        known = " ".join(sorted(_BY_EXTENSION))
        raise UnreadableError(uri, "unsupported", f"{extension!r} files are not read; those that are: {known}")
    if not named.is_text:
        what = "HTML" if looks_html else "no such file"
        raise UnreadableError(uri, "type mismatch", f"it is named {extension or mime!r}, but its content is {what}")
    return named


def _by_content(data: bytes, uri: str, named: Format | None) -> Format | None:
    """The format that the first bytes say, None for text; refuses what is neither."""
    if data.startswith(b"%PDF-") or (named is PDF and b"%PDF-" in data[:1024]):
        return PDF
    if named is EML and _is_mail(data[:_HEAD_BYTES]):
        return EML
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _package_format(data, uri, named)
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
    if data.startswith(_OLE):
        if named in (DOCX, PPTX, XLSX) and "EncryptedPackage".encode("utf-16-le") in data:
            raise UnreadableError(uri, "encrypted", "it wants a password; save it without one")
        kind = "an Office file from before 2007, or mail"
    if kind is not None:
        reason = "unsupported" if named is None else "type mismatch"
        raise UnreadableError(uri, reason, f"its content is {kind}")
    return None


def _is_mail(head: bytes) -> bool:
    """Whether it begins with headers, one of them a mail's: "Note: buy milk" is none."""
    head = _BODY.split(head.removeprefix(b"\xef\xbb\xbf").lstrip(), 1)[0]
    return _HEADER.match(head) is not None and _MAIL_HEADER.search(head) is not None


def _package_format(data: bytes, uri: str, named: Format | None) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            names = package.namelist()
            if "mimetype" in names:
                with package.open("mimetype") as stream:
                    if stream.read(64).strip() == EPUB.media_type.encode():
                        return EPUB
            if named is EPUB and "META-INF/container.xml" in names:  # its `mimetype` is wrong or missing
                return EPUB
            if "[Content_Types].xml" in names:
                with package.open("[Content_Types].xml") as stream:
                    types = stream.read(1 << 20)
                for main, format in _MAIN_PARTS.items():
                    if main in types:
                        return format
    except Exception as exc:  # zipfile raises a dozen classes on damage, struct.error and zlib.error among them
        raise UnreadableError(uri, "corrupt", f"its ZIP package is damaged: {exc}") from exc
    reason = "unsupported" if named is None else "type mismatch"
    raise UnreadableError(uri, reason, "its content is a ZIP archive, and neither an Office document nor an EPUB")
