"""What parse_filter takes and refuses, and what a filter means: docs/filters.md, case by case."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexers.base import FilterError, Metadata
from indexers.filter import MAX_DEPTH, OPERATORS, And, Comparison, Or, matches, parse_filter, to_json
from tests.filters import metadata, raw_filters

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure


def test_no_filter_is_none() -> None:
    assert parse_filter(None) is None
    assert parse_filter({}) is None
    assert to_json(None) == {}
    assert matches(None, {})


def test_bare_value_is_eq_and_fields_and_operators_are_joined_by_and() -> None:
    assert parse_filter({"a": "x"}) == Comparison("a", "$eq", "x")
    assert parse_filter({"a": 1, "b": {"$gt": 2, "$lt": 3}}) == And(
        (Comparison("a", "$eq", 1.0), Comparison("b", "$gt", 2.0), Comparison("b", "$lt", 3.0))
    )
    assert parse_filter({"$or": [{"a": 1}, {"b": 2}], "c": True}) == And(
        (Or((Comparison("a", "$eq", 1.0), Comparison("b", "$eq", 2.0))), Comparison("c", "$eq", True))
    )


def test_true_is_not_one() -> None:
    assert matches(parse_filter({"a": True}), {"a": True})
    assert not matches(parse_filter({"a": True}), {"a": 1.0})
    assert not matches(parse_filter({"a": 1}), {"a": True})
    assert not matches(parse_filter({"a": {"$gte": 0}}), {"a": True})


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ([], "[]"),
        ("x", "'x'"),
        ({"$not": [{"a": 1}]}, "'$not'"),
        ({"a": {"$regex": "x"}}, "filter.a.$regex: unknown operator '$regex'"),
        ({"a": {"b": 1}}, "filter.a.b: unknown operator 'b'"),
        ({"a": {}}, "filter.a"),
        ({"a": None}, "filter.a: None"),
        ({"a": [1, 2]}, "use $in"),
        ({"a": {"$in": "x"}}, "filter.a.$in: 'x'"),
        ({"a": {"$in": [["x"]]}}, "filter.a.$in[0]"),
        ({"a": {"$gt": "5"}}, "filter.a.$gt: '5'"),
        ({"a": {"$gt": True}}, "filter.a.$gt: True"),
        ({"a": {"$exists": 1}}, "filter.a.$exists: 1"),
        ({"$and": []}, "filter.$and: []"),
        ({"$or": {"a": 1}}, "filter.$or"),
        ({"$or": [{"a": 1}, {}]}, "filter.$or[1]: {}"),
        ({"": 1}, "''"),
        ({"a": float("nan")}, "nan"),
        ({"a": float("inf")}, "inf"),
        ({"a": 2**53 + 1}, str(2**53 + 1)),
        ({"a": 10**400}, "filter.a"),
        ({"a": "\ud800"}, "filter.a"),
        ({"\ud800": 1}, "field name"),
        ({"a": {"$in": ["x"] * 10_001}}, "10001 values"),
        ({"$or": [{"a": 1}] * 257}, "257 comparisons"),
    ],
)
def test_what_is_not_understood_is_refused_by_path_and_value(raw: object, named: str) -> None:
    with pytest.raises(FilterError) as refusal:
        parse_filter(raw)
    assert named in str(refusal.value)
    str(refusal.value).encode()


def test_depth_is_bounded() -> None:
    raw: dict[str, object] = {"a": 1}
    for _ in range(MAX_DEPTH - 1):
        raw = {"$and": [raw, {"b": 2}]}
    parse_filter(raw)
    with pytest.raises(FilterError, match="deeper"):
        parse_filter({"$or": [raw]})


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"a": 5}, "number"),
        ({"a": 5.0}, "number"),
        ({"a": "x"}, "string list"),
        ({"a": {"$ne": "x"}}, "number missing empty other"),
        ({"a": {"$in": ["x", 5]}}, "number string list"),
        ({"a": {"$in": []}}, ""),
        ({"a": {"$nin": ["x", 5]}}, "missing empty other"),
        ({"a": {"$nin": []}}, "number string list missing empty other"),
        ({"a": {"$exists": True}}, "number string list empty other"),
        ({"a": {"$exists": False}}, "missing"),
        ({"a": {"$gte": 5}}, "number"),
        ({"a": {"$gt": 5}}, ""),
        ({"a": {"$lt": 5.5}}, "number"),
        ({"a": {"$ne": 4}}, "number string list missing empty other"),
    ],
)
def test_meaning(raw: object, found: str) -> None:
    stored: dict[str, Metadata] = {
        "number": {"a": 5.0},
        "string": {"a": "x"},
        "list": {"a": ["x", "y"]},
        "missing": {"b": "x"},
        "empty": {"a": []},
        "other": {"a": "5"},
    }
    parsed = parse_filter(raw)
    assert [name for name, one in stored.items() if matches(parsed, one)] == sorted(
        found.split(), key=list(stored).index
    )


@unhurried
@given(raw_filters(), metadata())
def test_round_trip_keeps_the_filter_and_its_meaning(raw: dict[str, object], stored: Metadata) -> None:
    parsed = parse_filter(raw)
    again = parse_filter(json.loads(json.dumps(to_json(parsed))))
    assert again == parsed
    assert matches(again, stored) == matches(parsed, stored)


@unhurried
@given(st.sampled_from(["x", 5.0, True, False, 0.0]), metadata())
def test_negations_complement(value: str | float | bool, stored: Metadata) -> None:
    for raw, negated in (({"$eq": value}, {"$ne": value}), ({"$in": [value]}, {"$nin": [value]})):
        assert matches(parse_filter({"a": raw}), stored) != matches(parse_filter({"a": negated}), stored)


def test_every_operator_is_known() -> None:
    for operator in OPERATORS:
        value: object = {"$in": [1], "$nin": [1], "$exists": True}.get(operator, 1)
        assert parse_filter({"a": {operator: value}}) is not None
