"""Reciprocal rank fusion against values worked out by hand, and its invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.fuse import ranks, rrf

ids = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8).map(ranks)


def test_an_id_that_stands_twice_has_its_first_place() -> None:
    assert ranks(["a", "b", "a"]) == {"a": 1, "b": 2}


def test_scores_are_those_worked_out_by_hand() -> None:
    fused = rrf([ranks(["a", "b"]), ranks(["b", "c"])], k=60)
    assert fused == [
        ("b", pytest.approx(1 / 62 + 1 / 61)),
        ("a", pytest.approx(1 / 61)),
        ("c", pytest.approx(1 / 62)),
    ]


def test_weights_scale_a_ranking() -> None:
    assert rrf([ranks(["a"]), ranks(["b"])], k=1, weights=[1, 3]) == [("b", 1.5), ("a", 0.5)]


def test_ties_go_to_the_smaller_id() -> None:
    assert [id_ for id_, _ in rrf([ranks(["b", "a"]), ranks(["a", "b"])])] == ["a", "b"]


def test_nothing_gives_nothing() -> None:
    assert rrf([]) == rrf([{}, {}]) == []


def test_a_weight_is_needed_for_each_ranking() -> None:
    with pytest.raises(ValueError, match="1 weights for 2 rankings"):
        rrf([ranks(["a"]), ranks(["b"])], weights=[1])


@given(st.lists(ids, max_size=4))
def test_order_of_rankings_changes_nothing_and_every_id_stays(rankings: list[dict[str, int]]) -> None:
    fused, backwards = rrf(rankings), rrf(rankings[::-1])
    assert [i for i, _ in fused] == [i for i, _ in backwards]
    assert {i for i, _ in fused} == {i for ranking in rankings for i in ranking}
    assert [s for _, s in fused] == sorted((s for _, s in fused), reverse=True)


@given(ids)
def test_one_ranking_keeps_its_order(ranking: dict[str, int]) -> None:
    assert [i for i, _ in rrf([ranking])] == sorted(ranking, key=ranking.__getitem__)


@given(st.lists(ids, max_size=4), st.integers(0, 9))
def test_a_limit_leaves_the_beginning(rankings: list[dict[str, int]], limit: int) -> None:
    assert rrf(rankings, limit=limit) == rrf(rankings)[:limit]
