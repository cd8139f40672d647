"""Office files and EPUBs are ZIP packages of XML: their size and declarations are checked before one is read."""

import io
import zipfile

from indexers.readers.base import Raw, map_errors

_FREE_BYTES = 16 * 2**20  # below this the ratio is nobody's concern
_DOCTYPES = tuple("<!DOCTYPE".encode(encoding) for encoding in ("ascii", "utf-16-le", "utf-16-be"))


def check_package(raw: Raw, streamed: str = "") -> None:
    """Refuse a package that would grow too large, wants a password, or declares a document type.

    The format forbids such declarations (ECMA-376 part 2, 8.2.1): they only serve entity bombs and outside references.
    Members under the folder `streamed` are read piecemeal, so that only the package's limit holds for them.
    """
    with map_errors(raw, zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(raw.data)) as package:
        check_sizes(raw, package)
        for member in package.infolist():
            if not member.filename.lower().endswith((".xml", ".rels")):
                continue
            if member.file_size > raw.limits.max_part_bytes and not (streamed and member.filename.startswith(streamed)):
                raise raw.refuse("too large", f"its member {member.filename!r} expands to {member.file_size} bytes")
            _check_declarations(raw, package, member)


def check_sizes(raw: Raw, package: zipfile.ZipFile) -> None:
    """Refuse a package that would grow too large, or wants a password."""
    limits, members = raw.limits, package.infolist()
    total = sum(member.file_size for member in members)
    if total > limits.max_expanded_bytes or total > max(_FREE_BYTES, limits.max_ratio * len(raw.data)):
        raise raw.refuse("too large", f"it expands from {len(raw.data)} to {total} bytes")
    for member in members:
        if member.flag_bits & 1:
            raise raw.refuse("encrypted", f"its member {member.filename!r} wants a password")


def _check_declarations(raw: Raw, package: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    tail = b""
    with package.open(member) as stream:
        while block := stream.read(1 << 20):
            if any(doctype in tail + block for doctype in _DOCTYPES):
                raise raw.refuse("corrupt", f"its member {member.filename!r} declares a document type: forbidden here")
            tail = block[-32:]
