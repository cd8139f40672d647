"""Metadata as keywords and integers, and a filter as conditions over them: the form that engines answer from indexes.

Every (field, value) of a point's metadata becomes one keyword, with its type, so that one indexed field of an engine
answers equality and existence for any number of fields, whatever types they mix. Numbers become integers that order as
they do, for exact ranges: an engine may keep JSON numbers with an error in the last bit. See docs/filters.md.
"""

import json
import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Protocol, TypeVar, cast

from indexers.base import Metadata, Scalar
from indexers.filter import And, Comparison, Filter, Operator, Or

PUBLIC = "*"  # stands for no groups; a group's own name has a "+" before it
_OPPOSITE: dict[Operator, Operator] = {"$ne": "$eq", "$nin": "$in"}
_HALF = 2**32

C = TypeVar("C")


def keyword(*field_and_value: Scalar) -> str:
    """Distinct for each field, type and value: 88 bits of a hash in 15 characters of [A-Za-z0-9_-]. Whole values, which
    are longer and so checked elsewhere in memory, made scans about a quarter slower."""
    text = json.dumps(field_and_value, ensure_ascii=False)
    return urlsafe_b64encode(blake2b(text.encode(), digest_size=11).digest()).decode()[:15]


def keywords(metadata: Metadata) -> list[str]:
    """The keywords of a point's metadata: one for each field, and one for each of its values."""
    found = []
    for field, value in metadata.items():
        found.append(keyword(field))
        found.extend(keyword(field, v) for v in (value if isinstance(value, list) else [value]))
    return found


def group_keywords(groups: Sequence[str]) -> list[str]:
    """The keywords of who may see a point."""
    return [f"+{group}" for group in groups] or [PUBLIC]


def readable_keywords(groups: Iterable[str]) -> list[str]:
    """The keywords of which a point must have one to be seen by a member of these groups."""
    return [PUBLIC, *(f"+{group}" for group in sorted(groups))]


def halves(value: float) -> tuple[int, int]:
    """A number as two integers that order as numbers do: the upper 32 bits in [0, 2**32), the lower in [2**32, 2**33).
    Engines compare integers as float64, which holds 53 bits of one."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", value))
    ordered = bits ^ (2**64 - 1 if bits >> 63 else 2**63)
    return ordered >> 32, _HALF + (ordered & 0xFFFFFFFF)


class Dialect(Protocol[C]):
    """How an engine says things of a point."""

    def has_any(self, keywords: Sequence[str]) -> C:
        """It has one of these keywords, of which there is at least one."""
        ...

    def between(self, field: str, first: int, last: int) -> C:
        """One of the halves of the field's number lies in [first, last], which is not empty."""
        ...

    def every(self, parts: Sequence[C]) -> C: ...

    def some(self, parts: Sequence[C]) -> C: ...

    def no(self, part: C) -> C: ...

    def nothing(self) -> C:
        """True of no point."""
        ...


def conjuncts(parsed: Filter | None) -> tuple[list[Filter], list[Filter]]:
    """What must hold, and what must not, for the filter to hold."""
    match parsed:
        case None:
            return [], []
        case And(parts):
            pairs = [conjuncts(part) for part in parts]
            return [one for wanted, _ in pairs for one in wanted], [one for _, unwanted in pairs for one in unwanted]
        case Comparison(operator="$ne" | "$nin"):
            return [], [_opposite(parsed)]
        case _:
            return [parsed], []


def compile_filter(parsed: Filter, to: Dialect[C]) -> C:
    """The filter in an engine's dialect; docs/filters.md says what it means."""
    match parsed:
        case And(parts):
            return to.every([compile_filter(part, to) for part in parts])
        case Or(parts):
            return to.some([compile_filter(part, to) for part in parts])
        case Comparison(field, "$eq", value):
            return to.has_any([keyword(field, cast("Scalar", value))])
        case Comparison(field, "$in", values):
            listed = [keyword(field, value) for value in cast("tuple[Scalar, ...]", values)]
            return to.has_any(listed) if listed else to.nothing()
        case Comparison(field, "$exists", is_there):
            return to.has_any([keyword(field)]) if is_there else to.no(to.has_any([keyword(field)]))
        case Comparison(_, "$ne" | "$nin", _):
            return to.no(compile_filter(_opposite(parsed), to))
        case Comparison(field, operator, limit):
            return _compile_range(field, operator, cast("float", limit), to)


def _opposite(parsed: Comparison) -> Comparison:
    return replace(parsed, operator=_OPPOSITE[parsed.operator])


def _compile_range(field: str, operator: Operator, limit: float, to: Dialect[C]) -> C:
    """x < v: the upper half is smaller, or it is the same and the lower half is smaller; the others likewise."""
    upper, lower = halves(limit)
    match operator:
        case "$lt":
            beyond, rest = (0, upper - 1), (_HALF, lower - 1)
        case "$lte":
            beyond, rest = (0, upper - 1), (_HALF, lower)
        case "$gt":
            beyond, rest = (upper + 1, _HALF - 1), (lower + 1, 2 * _HALF - 1)
        case _:
            beyond, rest = (upper + 1, _HALF - 1), (lower, 2 * _HALF - 1)
    found = []
    if beyond[0] <= beyond[1]:
        found.append(to.between(field, *beyond))
    if rest[0] <= rest[1]:
        found.append(to.every([to.between(field, upper, upper), to.between(field, *rest)]))
    return to.some(found) if found else to.nothing()
