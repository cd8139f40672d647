"""What a View means to a Qdrant server: conditions over the payload fields that qdrant_collection indexes."""

from collections.abc import Sequence

from qdrant_client import models

from indexers.base import View
from indexers.keywords import compile_filter, conjuncts, keyword, readable_keywords

NAMESPACE, ID, BORN, DIED, GROUPS, KEYWORDS, NUMBERS = "ns", "i", "b", "d", "g", "t", "n"

Condition = models.Condition  # of a filter


class _Conditions:
    """The keywords.Dialect of Qdrant's conditions."""

    def has_any(self, keywords: Sequence[str]) -> Condition:
        return any_of(KEYWORDS, keywords)

    def between(self, field: str, first: int, last: int) -> Condition:
        return models.FieldCondition(key=number_field(field), range=models.Range(gte=first, lte=last))

    def every(self, parts: Sequence[Condition]) -> Condition:
        return models.Filter(must=list(parts))

    def some(self, parts: Sequence[Condition]) -> Condition:
        return models.Filter(should=list(parts))

    def no(self, part: Condition) -> Condition:
        return models.Filter(must_not=[part])

    def nothing(self) -> Condition:
        return models.HasIdCondition(has_id=[])


_CONDITIONS = _Conditions()


def number_field(field: str) -> str:
    """The payload field of a numeric metadata field: a name of ours, whatever characters the user's has."""
    return f"{NUMBERS}.{keyword(field)}"


def namespace_keyword(name: str) -> str:
    """A namespace's value in the tenant field; "" there marks what is no tenant's."""
    return f"+{name}"


def within(namespace: str) -> Condition:
    return any_of(NAMESPACE, [namespace_keyword(namespace)])


def any_of(field: str, values: Sequence[str]) -> Condition:
    if len(values) == 1:
        return models.FieldCondition(key=field, match=models.MatchValue(value=values[0]))
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))


def later_than(field: str, commit: int) -> Condition:
    """The commit in this field, BORN or DIED, comes after that one; false where there is none."""
    return models.FieldCondition(key=field, range=models.Range(gt=commit))


def not_later_than(field: str, commit: int) -> Condition:
    return models.FieldCondition(key=field, range=models.Range(lte=commit))


def live(namespace: str, ids: Sequence[str], born_until: int) -> models.Filter:
    """Versions under these ids that have not died and were born at or before that commit."""
    ended = later_than(DIED, -1)
    return models.Filter(must=[within(namespace), any_of(ID, ids)], must_not=[ended, later_than(BORN, born_until)])


def visible(namespace: str, view: View, *more: Condition) -> models.Filter:
    """What the view sees of a namespace and what meets `more`. Both conditions of the snapshot are always there:
    another process may write a version, at any moment, that only they keep out."""
    must: list[Condition] = [within(namespace), *more]
    if view.groups is not None:
        must.append(any_of(GROUPS, readable_keywords(view.groups)))
    wanted, unwanted = conjuncts(view.filter)
    must += [compile_filter(part, _CONDITIONS) for part in wanted]
    must_not: list[Condition] = [later_than(BORN, view.snapshot), not_later_than(DIED, view.snapshot)]
    must_not += [compile_filter(part, _CONDITIONS) for part in unwanted]
    return models.Filter(must=must, must_not=must_not)
