"""Texts of any length become batches of nearly one length, within a budget of tokens that counts the padding too."""

from collections.abc import Sequence

import numpy as np

from models.base import Int32


def plan_batches(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Indices into `lengths`, grouped: each batch has size × longest ≤ budget_tokens, or holds a single text.

    Longest first, so that the largest allocation comes first and equal lengths stay together; every index is in exactly
    one batch; ties keep their order. No text gives no batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def even_budget(lengths: Sequence[int], budget_tokens: int, streams: int) -> int:
    """A budget, at most `budget_tokens`, under which the batches keep every stream busy to the end.

    Rounds of `streams` batches each, as few as the budget allows, of about the same size; one text more than the mean,
    so that rounding does not leave a last small batch over.
    """
    if not lengths:
        return budget_tokens
    total = sum(lengths)
    rounds = -(-total // (budget_tokens * streams))
    return min(budget_tokens, -(-total // (rounds * streams)) + max(lengths) - 1)


def pad(sequences: Sequence[Int32], pad_id: int, width: int = 0) -> tuple[Int32, Int32]:
    """One matrix (n, longest or `width`) int32, padded on the right with `pad_id`, and the lengths (n,) int32."""
    lengths = [len(sequence) for sequence in sequences]
    matrix = np.full((len(sequences), max([width, *lengths])), pad_id, np.int32)
    for row, sequence in zip(matrix, sequences, strict=True):
        row[: len(sequence)] = sequence
    return matrix, np.array(lengths, np.int32)
