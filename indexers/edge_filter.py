"""What a View means to Qdrant's engine, and the payload fields that make it answerable from indexes.

Every (field, value) of a point's metadata becomes one keyword in the field `t`, with its type: one index then answers
equality and existence for any number of fields, whatever types they mix. Numbers go a second time into the integer
field `n`, in an order-preserving form, for ranges. See docs/filters.md.
"""

import json
import struct
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import cast

import qdrant_edge as engine

from indexers.base import Metadata, Scalar, View
from indexers.filter import And, Comparison, Filter, Operator, Or

BORN, DIED, GROUPS, TOKENS, NUMBERS = "b", "d", "g", "t", "n"
MAX_NUMERIC_FIELDS = 1000  # of a namespace; its file lists them. The encoding below has room for 2**20
PUBLIC = "*"  # stands for no groups; a group's own name has a "+" before it
_BROAD = 0.25  # above this share of points a positive match costs more than checking every point (measured)

_OPPOSITE: dict[Operator, Operator] = {"$ne": "$eq", "$nin": "$in"}

Condition = engine.FieldCondition | engine.HasIdCondition | engine.Filter
Slots = Mapping[str, int]  # numeric field → its number, below 2**20


def tokens(metadata: Metadata) -> list[str]:
    """The keywords of a point's metadata: one for each field, and one for each of its values."""
    found = []
    for field, value in metadata.items():
        found.append(_token(field))
        found.extend(_token(field, v) for v in (value if isinstance(value, list) else [value]))
    return found


def numbers(metadata: Metadata, slots: Slots) -> list[int]:
    """Each numeric field's value as two integers, one for each half of the float64."""
    found: list[int] = []
    for field, value in metadata.items():
        if isinstance(value, float):
            found.extend(_halves(slots[field], value))
    return found


def group_tokens(groups: tuple[str, ...]) -> list[str]:
    return [f"+{group}" for group in groups] or [PUBLIC]


@dataclass(frozen=True, slots=True)
class Extent:
    """The newest `born` and the oldest `died` that a shard may hold, and whether some points are for groups only.
    A new object whenever one of them changes."""

    newest_born: int = 0
    oldest_died: int | None = None
    has_groups: bool = False

    def with_born(self, commit: int, has_groups: bool) -> "Extent":
        wider = Extent(max(commit, self.newest_born), self.oldest_died, has_groups or self.has_groups)
        return self if wider == self else wider

    def with_died(self, commit: int) -> "Extent":
        is_known = self.oldest_died is not None and self.oldest_died <= commit
        return self if is_known else replace(self, oldest_died=commit)


def _dead(snapshot: int, extent: Extent) -> list[Condition]:
    """What must not hold of a point alive at the snapshot."""
    must_not: list[Condition] = []
    if extent.newest_born > snapshot:
        must_not.append(engine.FieldCondition(BORN, range=engine.RangeFloat(gt=snapshot)))
    if extent.oldest_died is not None and extent.oldest_died <= snapshot:
        must_not.append(engine.FieldCondition(DIED, range=engine.RangeFloat(lte=snapshot)))
    return must_not


def compile_view(
    view: View, slots: Slots, extent: Extent, share: Callable[[engine.Filter], float]
) -> engine.Filter | None:
    """The engine's filter for a view. A condition that excludes no stored point, by the shard's extent, is left out:
    each costs a scan of 100,000 points 3 ms, that of the groups 28 ms. `share` estimates what part of all points a
    filter lets through: a broad positive match is turned into a double negation, which the engine checks point by
    point instead of collecting and sorting every match."""
    wanted: list[Condition] = []
    unwanted = _dead(view.snapshot, extent)
    if view.groups is not None and extent.has_groups:
        names = [PUBLIC, *(f"+{group}" for group in sorted(view.groups))]
        wanted.append(engine.FieldCondition(GROUPS, match=engine.MatchAny(names)))
    for part in _conjuncts(view.filter):
        opposite = _OPPOSITE.get(part.operator) if isinstance(part, Comparison) else None
        if isinstance(part, Comparison) and opposite:
            unwanted.append(_compile(replace(part, operator=opposite), slots))
        else:
            wanted.append(_compile(part, slots))
    if not wanted:
        return engine.Filter(must_not=list(unwanted)) if unwanted else None
    if share(engine.Filter(must=list(wanted))) < _BROAD:
        return engine.Filter(must=list(wanted), must_not=list(unwanted))
    return engine.Filter(must_not=[*unwanted, *(engine.Filter(must_not=[one]) for one in wanted)])


def _conjuncts(parsed: Filter | None) -> tuple[Filter, ...]:
    """What must all hold for the filter to hold."""
    match parsed:
        case None:
            return ()
        case And(parts):
            return tuple(conjunct for part in parts for conjunct in _conjuncts(part))
        case _:
            return (parsed,)


def _compile(parsed: Filter, slots: Slots) -> Condition:
    match parsed:
        case And(parts):
            return engine.Filter(must=[_compile(part, slots) for part in parts])
        case Or(parts):
            return engine.Filter(should=[_compile(part, slots) for part in parts])
        case Comparison(field, "$eq", value):
            return _any_token(_token(field, cast("Scalar", value)))
        case Comparison(field, "$in", values):
            return _any_token(*(_token(field, value) for value in cast("tuple[Scalar, ...]", values)))
        case Comparison(field, "$exists", True):
            return _any_token(_token(field))
        case Comparison(field, ("$ne" | "$nin") as operator, _):
            return engine.Filter(must_not=[_compile(replace(parsed, operator=_OPPOSITE[operator]), slots)])
        case Comparison(field, "$exists", _):
            return engine.Filter(must_not=[_any_token(_token(field))])
        case Comparison(field, operator, limit):
            return _compile_range(slots.get(field), operator, cast("float", limit))


def _any_token(*keywords: str) -> Condition:
    if not keywords:
        return _nothing()
    if len(keywords) == 1:
        return engine.FieldCondition(TOKENS, match=engine.MatchValue(keywords[0]))
    return engine.FieldCondition(TOKENS, match=engine.MatchAny(list(keywords)))


def _nothing() -> Condition:
    return engine.HasIdCondition(set())


def _token(*field_and_value: Scalar) -> str:
    """Distinct for each field, type and value: 88 bits of a hash in 15 characters. Whole values, which are longer and
    so checked elsewhere in memory, made scans about a quarter slower."""
    text = json.dumps(field_and_value, ensure_ascii=False)
    return urlsafe_b64encode(blake2b(text.encode(), digest_size=11).digest()).decode()[:15]


# --- ranges --------------------------------------------------------------------------------------------------------
#
# The engine compares integers as float64, so a key has 53 bits: 20 for the field, 1 for the half, 32 for its value.


def _halves(slot: int, value: float) -> tuple[int, int]:
    """The keys of a number's upper and lower 32 bits, which order as the numbers do."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", value))
    ordered = bits ^ (2**64 - 1 if bits >> 63 else 2**63)
    return (2 * slot << 32) + (ordered >> 32), ((2 * slot + 1) << 32) + (ordered & 0xFFFFFFFF)


def _compile_range(slot: int | None, operator: str, limit: float) -> Condition:
    """x < v: the upper half is smaller, or it is the same and the lower half is smaller; the others likewise."""
    if slot is None:
        return _nothing()  # no number was ever stored under the field
    upper, lower = _halves(slot, limit)
    low, high = 2 * slot << 32, (2 * slot + 1) << 32  # where the field's upper and lower halves begin
    same_upper = _between(upper, upper)
    match operator:
        case "$lt":
            return _either(_between(low, upper - 1), same_upper, _between(high, lower - 1))
        case "$lte":
            return _either(_between(low, upper - 1), same_upper, _between(high, lower))
        case "$gt":
            return _either(_between(upper + 1, high - 1), same_upper, _between(lower + 1, high + 2**32 - 1))
        case _:
            return _either(_between(upper + 1, high - 1), same_upper, _between(lower, high + 2**32 - 1))


def _between(first: int, last: int) -> Condition:
    if first > last:
        return _nothing()
    return engine.FieldCondition(NUMBERS, range=engine.RangeFloat(gte=float(first), lte=float(last)))


def _either(beyond: Condition, same_upper: Condition, lower: Condition) -> Condition:
    return engine.Filter(should=[beyond, engine.Filter(must=[same_upper, lower])])
