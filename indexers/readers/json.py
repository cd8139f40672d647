"""JSON: a line a value, under its path; the top-level keys that hold more than a value are headings."""

import json
from collections.abc import Iterator

from indexers.canonical import TextBuilder
from indexers.readers.base import Extract, Extracts, Raw, map_errors
from indexers.readers.encoding import decode
from indexers.readers.text import replaced

_PATH_CHARS = 300  # of a path are written, its end: a long key would stand before every value below it
_LINE_CHARS = 200  # a list of scalars stands on one line up to this

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


def read_json(raw: Raw) -> Extracts:
    """One document. Numbers keep the digits the file spells them with."""
    decoded = decode(raw)
    yield from replaced(raw, decoded)
    text = decoded.text.lstrip("\ufeff")
    if not text.strip():
        raise raw.refuse("empty", "it holds nothing but white space")
    with map_errors(raw):
        value: JsonValue = json.loads(text, parse_int=str, parse_float=str)
        builder = raw.builder()
        write_value(value, builder)
        if builder.empty:
            raise raw.refuse("no text", "none of its values holds anything")
        title = value.get("title") if isinstance(value, dict) else None
        yield Extract(builder.text, builder.marks, (title if isinstance(title, str) else None,))


def write_value(value: JsonValue, builder: TextBuilder) -> None:
    """Write a whole JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list) and item:
                builder.heading(1, key)
                builder.block("\n".join(_lines(item)))
            else:
                builder.block("\n".join(_lines({key: item})), tight=True)
    elif isinstance(value, list):
        for item in value:
            builder.block("\n".join(_lines(item)), tight=not isinstance(item, dict | list))
    else:
        builder.block(_scalar(value))


def _lines(root: JsonValue) -> Iterator[str]:
    """ "path: value" for every scalar below root, in order; without recursion, whatever the depth."""
    stack: list[tuple[str, JsonValue]] = [("", root)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((f"{path}.{key}" if path else key, item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            scalars = [_scalar(item) for item in value if not isinstance(item, dict | list)]
            if len(scalars) == len(value) and sum(map(len, scalars)) <= _LINE_CHARS:
                stack.append((path, ", ".join(scalars)))
            else:
                stack.extend((f"{path}[{i}]", value[i]) for i in range(len(value) - 1, -1, -1))
        elif words := _scalar(value):
            if len(path) > _PATH_CHARS:
                path = "…" + path[-_PATH_CHARS:]
            yield f"{path}: {words}" if path else words


def _scalar(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
