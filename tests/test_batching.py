"""Batches cover every text once and keep to their budget, padding counted."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.batching import even_budget, pad, plan_batches


@given(lengths=st.lists(st.integers(1, 300)), budget=st.integers(1, 2000))
def test_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [lengths[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(lengths=st.lists(st.integers(1, 300)), budget=st.integers(1, 2000), streams=st.integers(1, 8))
def test_an_even_budget_is_never_larger(lengths: list[int], budget: int, streams: int) -> None:
    assert 1 <= even_budget(lengths, budget, streams) <= budget


def test_an_even_budget_leaves_no_small_batch_over() -> None:
    lengths = [220] * 40
    assert [len(batch) for batch in plan_batches(lengths, 4096)] == [18, 18, 4]
    assert [len(batch) for batch in plan_batches(lengths, even_budget(lengths, 4096, 2))] == [10, 10, 10, 10]
    assert [len(batch) for batch in plan_batches([220] * 2, even_budget([220] * 2, 4096, 2))] == [1, 1]


def test_by_hand() -> None:
    assert plan_batches([3, 9, 4, 4], 12) == [[1], [2, 3, 0]]
    assert plan_batches([], 12) == []


def test_padding() -> None:
    matrix, lengths = pad([np.array([5, 6], np.int32), np.array([7], np.int32)], 9)
    assert matrix.tolist() == [[5, 6], [7, 9]]
    assert lengths.tolist() == [2, 1]
    assert matrix.dtype == lengths.dtype == np.int32
