"""How an answer is scored against gold answers, and a score against a threshold. Pure functions."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARKER = re.compile(r"\s*\[\d{1,2}(?:\s*,\s*\d{1,2})*\]")


def without_markers(answer: str) -> str:
    """The answer's own words."""
    return _MARKER.sub("", answer)


def normalise(text: str) -> str:
    """SQuAD's official normalisation: lower case, without punctuation and articles, white space folded."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer equals a gold answer after normalisation, else 0 (Rajpurkar et al. 2018, arXiv:1806.03822)."""
    return float(any(normalise(answer) == normalise(gold) for gold in golds))


def f1(answer: str, golds: Sequence[str]) -> float:
    """The largest F1 of the answer's tokens with those of a gold answer; bags of tokens, as in SQuAD's own script."""
    return max((_f1(normalise(answer).split(), normalise(gold).split()) for gold in golds), default=0.0)


def _f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold)) if common else 0.0


def holds(text: str, golds: Sequence[str]) -> bool:
    """Whether a gold answer stands in the text, word for word after normalisation."""
    words = f" {normalise(text)} "
    return any(f" {normalise(gold)} " in words for gold in golds if normalise(gold))


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties half (Mann–Whitney); 0.5 without either."""
    if not positives or not negatives:
        return 0.5
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))


def refused(scores: Sequence[float], threshold: float) -> float:
    """Share of scores below the threshold."""
    return sum(score < threshold for score in scores) / max(1, len(scores))


def quantile(scores: Sequence[float], share: float) -> float:
    """The score that `share` of the scores are below."""
    return sorted(scores)[min(len(scores) - 1, round(share * len(scores)))]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text, the first to the left, the others to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
