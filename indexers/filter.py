"""Metadata filters in Pinecone's language, parsed once into a small tree that every backend compiles.

`matches` says in plain Python what a filter means; docs/filters.md says it in words. Numbers are float64 and booleans
are not numbers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from indexers.base import FilterError, Metadata, MetadataValue, Scalar

Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"]

OPERATORS: tuple[Operator, ...] = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists")
MAX_DEPTH = 16  # nested $and and $or
MAX_COMPARISONS = 256
MAX_VALUES = 10_000  # in all $in and $nin lists together; Pinecone's own limit for one list


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value; `value` is a tuple for $in and $nin, a bool for $exists."""

    field: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Filter", ...]


Filter = Comparison | And | Or


def parse_filter(raw: object) -> Filter | None:
    """Parse a filter as it comes over the wire; None or {} is no filter. Raises FilterError, naming path and value."""
    if raw is None or raw == {}:
        return None
    parsed = _parse_object(raw, "filter", 1)
    leaves = list(_comparisons(parsed))
    if len(leaves) > MAX_COMPARISONS:
        raise FilterError(f"filter has {len(leaves)} comparisons; at most {MAX_COMPARISONS} are taken: use $in lists")
    values = sum(len(leaf.value) for leaf in leaves if isinstance(leaf.value, tuple))
    if values > MAX_VALUES:
        raise FilterError(f"filter lists {values} values in $in and $nin; at most {MAX_VALUES} are taken: split it")
    return parsed


def to_json(parsed: Filter | None) -> dict[str, object]:
    """The filter in the wire's language, canonical: `parse_filter(to_json(f)) == f`, and {} for no filter."""
    match parsed:
        case None:
            return {}
        case And(parts):
            return {"$and": [to_json(part) for part in parts]}
        case Or(parts):
            return {"$or": [to_json(part) for part in parts]}
        case Comparison(field, operator, value):
            return {field: {operator: list(value) if isinstance(value, tuple) else value}}


def matches(parsed: Filter | None, metadata: Metadata) -> bool:
    """Whether metadata satisfies a filter: the meaning that every backend's compiled form must agree with."""
    match parsed:
        case None:
            return True
        case And(parts):
            return all(matches(part, metadata) for part in parts)
        case Or(parts):
            return any(matches(part, metadata) for part in parts)
        case Comparison(field, operator, value):
            return _compare(operator, metadata.get(field), value)


def number(value: float) -> float | None:
    """An int or float as float64, or None where that would change it: NaN, infinities, integers that do not fit."""
    try:
        as_float = float(value) + 0.0  # -0.0 becomes 0.0: the two are equal
    except OverflowError:
        return None
    return as_float if as_float == value and as_float not in (float("inf"), float("-inf")) else None


def is_unicode(text: str) -> bool:
    """False for a lone surrogate, which no UTF-8 holds."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def shown(raw: object) -> str:
    """A value as a message names it: its repr, of a long one the beginning."""
    text = repr(raw)
    return text if len(text) <= 80 else text[:77] + "…"


# --- parsing -------------------------------------------------------------------------------------------------------


def _comparisons(parsed: Filter) -> Iterator[Comparison]:
    if isinstance(parsed, Comparison):
        yield parsed
    else:
        for part in parsed.parts:
            yield from _comparisons(part)


def _parse_object(raw: object, path: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"{path}: $and and $or are nested deeper than {MAX_DEPTH}; flatten the filter")
    if not isinstance(raw, Mapping) or not raw:
        raise FilterError(f"{path}: {shown(raw)} is no condition; write an object such as {{'field': {{'$eq': 1}}}}")
    parts: list[Filter] = []
    for key, value in raw.items():
        if not isinstance(key, str) or not key or not is_unicode(key):
            raise FilterError(f"{path}: {shown(key)} is no field name; use a non-empty string")
        if key in ("$and", "$or"):
            parts.append(_parse_junction(key, value, f"{path}.{key}", depth))
        elif key.startswith("$"):
            raise FilterError(f"{path}: unknown operator {shown(key)}; here may stand a field, $and or $or")
        else:
            parts.extend(_parse_field(key, value, f"{path}.{key}"))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parse_junction(key: str, raw: object, path: str, depth: int) -> Filter:
    if not isinstance(raw, list) or not raw:
        raise FilterError(f"{path}: {shown(raw)} is not a list of one or more conditions")
    parts = tuple(_parse_object(part, f"{path}[{i}]", depth + 1) for i, part in enumerate(raw))
    if len(parts) == 1:
        return parts[0]
    return And(parts) if key == "$and" else Or(parts)


def _parse_field(field: str, raw: object, path: str) -> list[Filter]:
    if not isinstance(raw, Mapping):
        return [Comparison(field, "$eq", _scalar(raw, path))]
    if not raw:
        raise FilterError(f"{path}: {{}} says nothing; use one of {', '.join(OPERATORS)}")
    return [_parse_operator(field, operator, value, f"{path}.{operator}") for operator, value in raw.items()]


def _parse_operator(field: str, operator: object, raw: object, path: str) -> Comparison:
    match operator:
        case "$eq" | "$ne":
            return Comparison(field, operator, _scalar(raw, path))
        case "$gt" | "$gte" | "$lt" | "$lte":
            value = _scalar(raw, path)
            if not isinstance(value, float):
                raise FilterError(f"{path}: {shown(raw)} is no number, and {operator} compares numbers only")
            return Comparison(field, operator, value)
        case "$in" | "$nin":
            if not isinstance(raw, list):
                raise FilterError(f"{path}: {shown(raw)} is no list, and {operator} takes a list of values")
            return Comparison(field, operator, tuple(_scalar(v, f"{path}[{i}]") for i, v in enumerate(raw)))
        case "$exists":
            if not isinstance(raw, bool):
                raise FilterError(f"{path}: {shown(raw)} is neither true nor false")
            return Comparison(field, operator, raw)
        case _:
            raise FilterError(f"{path}: unknown operator {shown(operator)}; known are {', '.join(OPERATORS)}")


def _scalar(raw: object, path: str) -> Scalar:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float):
        value = number(raw)
        if value is None:
            raise FilterError(f"{path}: {shown(raw)} is no finite float64; send it as a string")
        return value
    if isinstance(raw, str) and is_unicode(raw):
        return raw
    way_out = {list: "; use $in", type(None): "; use {'$exists': false}"}.get(type(raw), "")
    raise FilterError(f"{path}: {shown(raw)} is neither a string, a number nor a boolean{way_out}")


# --- meaning -------------------------------------------------------------------------------------------------------


def _compare(operator: Operator, stored: MetadataValue | None, value: Scalar | tuple[Scalar, ...]) -> bool:
    match operator:
        case "$eq":
            return _equal(stored, cast("Scalar", value))
        case "$ne":
            return not _equal(stored, cast("Scalar", value))
        case "$in":
            return any(_equal(stored, v) for v in cast("tuple[Scalar, ...]", value))
        case "$nin":
            return not any(_equal(stored, v) for v in cast("tuple[Scalar, ...]", value))
        case "$exists":
            return (stored is not None) == value
    if isinstance(stored, bool) or not isinstance(stored, int | float):
        return False
    limit = cast("float", value)
    return {"$gt": stored > limit, "$gte": stored >= limit, "$lt": stored < limit, "$lte": stored <= limit}[operator]


def _equal(stored: MetadataValue | None, value: Scalar) -> bool:
    if isinstance(stored, list):
        return value in stored
    if isinstance(stored, bool) or isinstance(value, bool):
        return isinstance(stored, bool) and isinstance(value, bool) and stored == value
    return stored == value
