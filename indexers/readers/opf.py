"""What an EPUB's package document says: title, authors, and the documents of the book in reading order."""

import posixpath
import re
import zipfile
from dataclasses import dataclass
from urllib.parse import unquote

from lxml import etree  # type: ignore[import-untyped]

from indexers.canonical import canonical
from indexers.readers.base import Raw

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_OPF = "{http://www.idpf.org/2007/opf}"
_ENTITY = re.compile(b"<!ENTITY|<\0!\0E\0N\0T\0I\0T\0Y|\0<\0!\0E\0N\0T\0I\0T\0Y")
_NO_TEXT = frozenset({"cover", "toc"})  # what older books say of such pages in their guide


@dataclass(frozen=True, slots=True)
class Book:
    """`documents` are names of members, in the order of the spine, without navigation, cover and pictures."""

    title: str
    authors: tuple[str, ...]
    documents: tuple[str, ...]


def read_book(raw: Raw, package: zipfile.ZipFile) -> Book:
    """Raises UnreadableError: "corrupt"; "encrypted" if documents of the book are. Fonts may be: they are not read."""
    root = _parsed(raw, package, _CONTAINER).find(".//{*}rootfile")
    name = posixpath.normpath((root.get("full-path") or "") if root is not None else "")
    encrypted = _encrypted(raw, package)
    _refuse_encrypted(raw, {name} & encrypted)
    opf = _parsed(raw, package, name)
    documents = _documents(opf, posixpath.dirname(name), frozenset(package.namelist()))
    if not documents:
        raise raw.refuse("corrupt", f"{name!r} names no documents in its reading order")
    _refuse_encrypted(raw, encrypted.intersection(documents))
    return Book(
        next(filter(None, map(_words, opf.iterfind("{*}metadata//{*}title"))), ""), _authors(opf), tuple(documents)
    )


def member(raw: Raw, package: zipfile.ZipFile, name: str) -> bytes:
    """A member's bytes. Raises UnreadableError("too large"), and what zipfile raises on damage."""
    try:
        info = package.getinfo(name)
    except KeyError:
        raise raw.refuse("corrupt", f"it has no member {name!r}") from None
    if info.file_size > raw.limits.max_part_bytes:
        raise raw.refuse("too large", f"its member {name!r} expands to {info.file_size} bytes")
    return package.read(info)


def _parsed(raw: Raw, package: zipfile.ZipFile, name: str) -> etree._Element:
    data = member(raw, package, name)
    if _ENTITY.search(data):
        raise raw.refuse("corrupt", f"its member {name!r} declares entities: forbidden here")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    return etree.fromstring(data, parser)


def _encrypted(raw: Raw, package: zipfile.ZipFile) -> set[str]:
    if _ENCRYPTION not in package.namelist():
        return set()
    references = _parsed(raw, package, _ENCRYPTION).iter("{*}CipherReference")
    return {posixpath.normpath(unquote(reference.get("URI") or "")) for reference in references}


def _refuse_encrypted(raw: Raw, names: set[str]) -> None:
    if names:
        raise raw.refuse("encrypted", f"{min(names)!r} in it is protected (DRM); ingest a copy that is not")


def _documents(opf: etree._Element, folder: str, names: frozenset[str]) -> list[str]:
    def found(href: str) -> str:
        path = posixpath.normpath(posixpath.join(folder, unquote(href)))
        written = posixpath.normpath(posixpath.join(folder, href))
        return written if written in names and path not in names else path

    items = {item.get("id"): item for item in opf.iterfind("{*}manifest/{*}item")}
    spine = [items.get(reference.get("idref")) for reference in opf.iterfind("{*}spine/{*}itemref")]
    listed = dict.fromkeys(
        found(item.get("href") or "")
        for item in spine
        if item is not None
        and "nav" not in (item.get("properties") or "").split()
        and not (item.get("media-type") or "").startswith("image/")
    )
    guide = opf.iterfind("{*}guide/{*}reference")
    without_text = {found(one.get("href") or "") for one in guide if one.get("type") in _NO_TEXT}
    return [name for name in listed if name not in without_text] or list(listed)


def _authors(opf: etree._Element) -> tuple[str, ...]:
    """Those creators that are authors, if any are said to be; else all."""
    roles = {
        (meta.get("refines") or "").removeprefix("#"): _words(meta)
        for meta in opf.iterfind("{*}metadata/{*}meta")
        if meta.get("property") == "role"
    }
    creators = [
        (_words(creator), creator.get(_OPF + "role") or roles.get(creator.get("id") or "-", "aut"))
        for creator in opf.iterfind("{*}metadata//{*}creator")
    ]
    authors = [name for name, role in creators if name and role == "aut"]
    return tuple(dict.fromkeys(authors or [name for name, _ in creators if name]))


def _words(element: etree._Element) -> str:
    return " ".join(canonical("".join(element.itertext())).split())
