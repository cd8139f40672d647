"""Token-level recall, precision and IoU of retrieved spans against gold spans. Pure functions over token positions.

Smith & Troynikov, "Evaluating Chunking Strategies for Retrieval", Chroma Technical Report, 2024: a wanted token counts
once, a retrieved one as often as it was retrieved, so that repetition costs precision and IoU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexers.base import Int32


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Tokens [first, last) of a document."""

    document: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Overlap:
    """What of the wanted tokens was retrieved, what of the retrieved ones was wanted, and both in one."""

    recall: float
    precision: float
    iou: float


def token_span(document: str, offsets: Int32, start: int, end: int) -> TokenSpan:
    """The tokens that touch code points [start, end); `offsets` (tokens, 2) as the tokenizer gives them, ascending."""
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    return TokenSpan(document, first, max(first, int(np.searchsorted(offsets[:, 0], end, side="left"))))


def overlap(wanted: Sequence[TokenSpan], retrieved: Sequence[TokenSpan]) -> Overlap:
    """recall |W ∩ R| / |W|, precision |W ∩ R| / Σ|r|, IoU |W ∩ R| / (|W| + Σ|r| − |W ∩ R|); nothing wanted gives 0."""
    want, found = positions(wanted), positions(retrieved)
    hit = len(want & found)
    taken = sum(len(span) for span in retrieved)
    return Overlap(
        recall=hit / len(want) if want else 0.0,
        precision=hit / taken if taken else 0.0,
        iou=hit / (len(want) + taken - hit) if want or taken else 0.0,
    )


def within(retrieved: Sequence[TokenSpan], budget: int) -> list[TokenSpan]:
    """The best spans that a context of `budget` tokens holds, no token twice, the last one cut where it ends."""
    held: set[tuple[str, int]] = set()
    placed: list[TokenSpan] = []
    for span in retrieved:
        last = span.first
        while last < span.last and (len(held) < budget or (span.document, last) in held):
            held.add((span.document, last))
            last += 1
        placed.append(TokenSpan(span.document, span.first, last))
        if last < span.last:
            break
    return placed


def positions(spans: Sequence[TokenSpan]) -> set[tuple[str, int]]:
    """Every token of the spans, once."""
    return {(span.document, i) for span in spans for i in range(span.first, span.last)}
