"""A filter compiled to keywords and integers means what `matches` says, checked on points one by one, by no engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from indexers.base import Metadata
from indexers.filter import matches, parse_filter
from indexers.keywords import compile_filter, conjuncts, halves, keywords
from tests.filters import metadata, raw_filters


@dataclass(frozen=True)
class Truth:
    """Whether a condition holds of one point: the smallest engine there is."""

    point: Metadata

    def has_any(self, keywords_: Sequence[str]) -> bool:
        assert keywords_
        return not set(keywords_).isdisjoint(keywords(self.point))

    def between(self, field: str, first: int, last: int) -> bool:
        assert 0 <= first <= last < 2**33
        value = self.point.get(field)
        return isinstance(value, float) and any(first <= half <= last for half in halves(value))

    def every(self, parts: Sequence[bool]) -> bool:
        return all(parts)

    def some(self, parts: Sequence[bool]) -> bool:
        return any(parts)

    def no(self, part: bool) -> bool:
        return not part

    def nothing(self) -> bool:
        return False


@given(metadata(), raw_filters())
def test_a_compiled_filter_means_the_same(point: Metadata, raw: dict[str, object]) -> None:
    parsed = parse_filter(raw)
    assert parsed is not None
    expected = matches(parsed, point)
    assert compile_filter(parsed, Truth(point)) == expected
    wanted, unwanted = conjuncts(parsed)
    holds = all(compile_filter(part, Truth(point)) for part in wanted)
    assert (holds and not any(compile_filter(part, Truth(point)) for part in unwanted)) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0), min_size=2))
def test_halves_order_as_numbers_do(numbers: list[float]) -> None:
    assert sorted(numbers, key=halves) == sorted(numbers)
