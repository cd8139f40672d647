"""What a View means to Qdrant's engine in this process, and the payload fields that make it answerable from indexes.

Keywords (indexers.keywords) lie in the field `t`. The halves of all numbers share the integer field `n`: each numeric
field of a namespace has a number of its own, which is the upper part of its keys.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import qdrant_edge as engine

from indexers.base import Metadata, View
from indexers.keywords import compile_filter, conjuncts, halves, readable_keywords

BORN, DIED, GROUPS, TOKENS, NUMBERS = "b", "d", "g", "t", "n"
MAX_NUMERIC_FIELDS = 1000  # of a namespace; its file lists them. The encoding below has room for 2**20
_BROAD = 0.7  # above this share of points a positive match costs more than checking every point (measured)
_MOST_UNITED = 300  # lists of points that are gone through together; of more it is quicker to check every point

Condition = engine.FieldCondition | engine.HasIdCondition | engine.Filter
Slots = Mapping[str, int]  # numeric field → its number, below 2**20


def numbers(metadata: Metadata, slots: Slots) -> list[int]:
    """Each numeric field's value as two integers, one for each half of the float64. The engine compares integers as
    float64, so a key has 53 bits: 20 for the field, 1 for the half, 32 for its value."""
    fields = ((slots[field], value) for field, value in metadata.items() if isinstance(value, float))
    return [_first_key(slot) + half for slot, value in fields for half in halves(value)]


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
    point instead of collecting and sorting every match. Keywords and nothing else need no check at all."""
    wanted: list[Condition] = []
    unwanted = _dead(view.snapshot, extent)
    if view.groups is not None and extent.has_groups:
        wanted.append(engine.FieldCondition(GROUPS, match=engine.MatchAny(readable_keywords(view.groups))))
    required, excluded = conjuncts(view.filter)
    conditions = _Conditions(slots)
    wanted += [compile_filter(part, conditions) for part in required]
    unwanted += [compile_filter(part, conditions) for part in excluded]
    if not wanted:
        return engine.Filter(must_not=list(unwanted)) if unwanted else None
    if len(wanted) == 1 and not unwanted and (alternatives := _alternatives(wanted[0])):
        return engine.Filter(should=list(alternatives))
    if share(engine.Filter(must=list(wanted))) < _BROAD:
        return engine.Filter(must=list(wanted), must_not=list(unwanted))
    return engine.Filter(must_not=[*unwanted, *(engine.Filter(must_not=[one]) for one in wanted)])


def _alternatives(wanted: Condition) -> Sequence[engine.FieldCondition]:
    """A condition on keywords as one for each of them, so that the engine goes through their lists of points: a third
    of the time that it takes to check every point. Empty for another condition, or if there are too many."""
    if not isinstance(wanted, engine.FieldCondition):
        return []
    match wanted.match:
        case engine.MatchValue():
            return [wanted]
        case engine.MatchAny(value=keywords) if len(keywords) <= _MOST_UNITED:
            return [engine.FieldCondition(wanted.key, match=engine.MatchValue(keyword)) for keyword in keywords]
        case _:
            return []


@dataclass(frozen=True, slots=True)
class _Conditions:
    """The keywords.Dialect of the engine's conditions."""

    slots: Slots

    def has_any(self, keywords: Sequence[str]) -> Condition:
        if len(keywords) == 1:
            return engine.FieldCondition(TOKENS, match=engine.MatchValue(keywords[0]))
        return engine.FieldCondition(TOKENS, match=engine.MatchAny(list(keywords)))

    def between(self, field: str, first: int, last: int) -> Condition:
        if field not in self.slots:
            return self.nothing()  # no number was ever stored under the field
        start = _first_key(self.slots[field])
        keys = engine.RangeFloat(gte=float(start + first), lte=float(start + last))
        return engine.FieldCondition(NUMBERS, range=keys)

    def every(self, parts: Sequence[Condition]) -> Condition:
        return engine.Filter(must=list(parts))

    def some(self, parts: Sequence[Condition]) -> Condition:
        return engine.Filter(should=list(parts))

    def no(self, part: Condition) -> Condition:
        return engine.Filter(must_not=[part])

    def nothing(self) -> Condition:
        return engine.HasIdCondition(set())


def _first_key(slot: int) -> int:
    return 2 * slot << 32
