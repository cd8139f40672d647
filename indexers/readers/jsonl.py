"""JSONL: a document a line, with its title, text, id and metadata; a bad line is reported, the others come through."""

import json
import math
from dataclasses import replace

from indexers.base import InvalidPointError, Mark, Metadata, MetadataValue, UnreadableError
from indexers.canonical import canonical
from indexers.point import checked_metadata
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.encoding import Decoded, decode
from indexers.readers.json import JsonValue, write_value
from indexers.readers.text import replaced

_TEXT_FIELDS = ("text", "contents", "content", "body", "page_content")
_ID_FIELDS = ("id", "_id")
_REPLACEMENT = "\ufffd".encode()


def read_jsonl(raw: Raw) -> Extracts:
    """A document for every line that is not blank, its fragment "#" and the line's number from 1.

    An object's text is its field `text` (or contents, content, body), else all its values by path; `title` is its
    title, `id` and `metadata` its metadata. `part` is the line in UTF-8. Bytes that had to be replaced are reported
    beside their line.
    """
    lines, decoded = _lines(raw)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            fragment = f"#{number}"
            here = Raw(line, raw.uri + fragment, raw.limits)
            try:
                yield _document(here, fragment)
            except UnreadableError as failure:
                yield failure
                continue
            if decoded is not None and decoded.replaced:
                yield from replaced(here, replace(decoded, replaced=line.count(_REPLACEMENT)))


def _lines(raw: Raw) -> tuple[list[bytes], Decoded | None]:
    """The lines in UTF-8, and what they were decoded to where the file is not UTF-8 as it stands.

    A line feed ends a line, nothing else: U+2028 may stand inside a JSON string.
    """
    data, decoded = raw.data.removeprefix(b"\xef\xbb\xbf"), None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        decoded = decode(raw)
        data = decoded.text.encode("utf-8", "replace")
    return [line.removesuffix(b"\r") for line in data.split(b"\n")], decoded


def _document(here: Raw, fragment: str) -> Extract:
    with map_errors(here):
        value: JsonValue = json.loads(here.data, parse_int=_integer)
        if not isinstance(value, dict):
            raise here.refuse("corrupt", f"the line is a JSON {type(value).__name__}, and an object is needed")
        name = next((name for name in _TEXT_FIELDS if isinstance(value.get(name), str)), None)
        text = value.get(name) if name else None
        title = value.get("title")
        marks: tuple[Mark, ...] = ()
        if isinstance(text, str):
            words = canonical(text).strip()
        else:
            builder = here.builder()
            write_value({key: item for key, item in value.items() if key not in _ID_FIELDS}, builder)
            words, marks = builder.text, builder.marks
        if not words:
            raise here.refuse("empty", "its text is empty")
        titles = (title if isinstance(title, str) else None,)
        return Extract(words, marks, titles, _metadata(here, value), fragment, here.data)


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own limit is 4,300 digits: the time grows with the square of their number
        raise ValueError(f"it holds a number of {len(digits)} digits; send it as a string") from None


def _metadata(here: Raw, value: dict[str, JsonValue]) -> Metadata:
    """The metadata of a line's object, if every index can hold it; else the line is refused."""
    try:
        return checked_metadata(_flat(value))
    except InvalidPointError as exc:
        raise here.refuse("corrupt", str(exc)) from exc


def _flat(value: dict[str, JsonValue]) -> Metadata:
    """The id and the `metadata` object; nested objects by dotted names, lists of strings, null left out."""
    metadata: dict[str, MetadataValue] = {}
    stack: list[tuple[str, JsonValue]] = []
    for name in _ID_FIELDS:
        if isinstance(value.get(name), str | int):
            stack = [("id", str(value[name]))]
            break
    if isinstance(fields := value.get("metadata"), dict):
        stack.extend((key, item) for key, item in reversed(fields.items()))
    while stack:
        name, item = stack.pop()
        if isinstance(item, dict):
            stack.extend((f"{name}.{key}", inner) for key, inner in reversed(item.items()))
        elif isinstance(item, list):
            scalars = [inner for inner in item if isinstance(inner, str | int | float)]
            odd = next((inner for inner in scalars if isinstance(inner, float) and not math.isfinite(inner)), None)
            metadata[name] = [canonical(str(inner)) for inner in scalars] if odd is None else odd
        elif isinstance(item, str):
            metadata[name] = canonical(item)
        elif item is not None:
            metadata[name] = item
    return metadata
