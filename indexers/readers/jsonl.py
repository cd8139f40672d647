"""JSONL: a document a line, with its title, text, id and metadata; a bad line is reported, the others come through."""

import json
import math

from indexers.base import Mark, Metadata, MetadataValue, UnreadableError
from indexers.canonical import canonical
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.encoding import decode
from indexers.readers.json import JsonValue, write_value

_TEXT_FIELDS = ("text", "contents", "content", "body", "page_content")
_ID_FIELDS = ("id", "_id")


def read_jsonl(raw: Raw) -> Extracts:
    """A document for every line that is not blank, its fragment "#" and the line's number from 1.

    An object's text is its field `text` (or contents, content, body), else all its values by path; `title` is its
    title, `id` and `metadata` its metadata. `part` is the line in UTF-8.
    """
    for number, line in enumerate(_lines(raw), start=1):
        if line.strip():
            try:
                yield _document(raw, number, line)
            except UnreadableError as failure:
                yield failure


def _lines(raw: Raw) -> list[bytes]:
    """The lines in UTF-8. A line feed ends a line, nothing else: U+2028 may stand inside a JSON string."""
    data = raw.data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        decoded = decode(raw)
        if decoded.encoding != "utf-8":
            data = decoded.text.encode("utf-8", "replace")
    return [line.removesuffix(b"\r") for line in data.split(b"\n")]


def _document(raw: Raw, number: int, line: bytes) -> Extract:
    fragment = f"#{number}"
    here = Raw(line, raw.uri + fragment, raw.limits)
    with map_errors(here):
        value: JsonValue = json.loads(line)
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
        return Extract(words, marks, titles, _metadata(value), fragment, line)


def _metadata(value: dict[str, JsonValue]) -> Metadata:
    """The `metadata` object and the id; nested objects by dotted names, numbers as floats, lists of strings."""
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
            metadata[name] = [canonical(str(inner)) for inner in item if isinstance(inner, str | int | float)]
        elif isinstance(item, str):
            metadata[name] = canonical(item)
        elif isinstance(item, bool):
            metadata[name] = item
        elif isinstance(item, int | float) and math.isfinite(number := float(item)):
            metadata[name] = number
    return metadata
