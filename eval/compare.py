"""Is a run worse than a baseline, beyond chance? Two sets of scores enter, a Comparison leaves.

Judged are the columns that a search may return: the served one and, for searches without reranking, the fused one. At
α 0.01, two-sided, a change that changes nothing is called worse in at most one of a hundred comparisons.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.ranking import FUSED
from eval.record import Baseline
from server.base import InvalidRequestError

PERMUTATIONS, SEED, ALPHA = 10_000, 20_261_123, 0.01
_SAME = 1e-4  # what rounding a baseline's values may change
_AT_ONCE = 500  # permutations drawn together: 12 MB at 3,000 questions
SERVED = "served"

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    """A column of two runs. `worse`, `better`: significantly so, if the column is judged."""

    column: str
    baseline: float
    run: float
    p: float
    wins: int
    ties: int
    losses: int
    is_judged: bool
    alpha: float

    @property
    def delta(self) -> float:
        return self.run - self.baseline

    @property
    def verdict(self) -> str:
        """worse, better, or as good: no difference beyond chance."""
        if self.p >= self.alpha:
            return "as good"
        return "worse" if self.delta < 0 else "better"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs over the same questions; `deltas` of the served column by question id, run less baseline."""

    baseline: Baseline
    run: Baseline
    columns: tuple[Compared, ...]
    deltas: Mapping[str, float]

    @property
    def is_worse(self) -> bool:
        return any(one.is_judged and one.verdict == "worse" for one in self.columns)


def randomisation_test(differences: Float64, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """Two-sided p of the mean of paired differences (n,), under the hypothesis that each one's sign is chance.

    Fisher's randomisation test as Smucker, Allan & Carterette, "A comparison of statistical significance tests for
    information retrieval evaluation", CIKM 2007, recommend it; (hits + 1) / (permutations + 1) by Phipson & Smyth 2010,
    since the order seen is one of the permutations. Differences that are all 0, or none, give 1.
    """
    differences = differences[differences != 0]  # their sign changes nothing
    if not len(differences):
        return 1.0
    rng, observed, hits = np.random.default_rng(seed), abs(differences.sum()), 0
    for first in range(0, permutations, _AT_ONCE):
        signs = rng.integers(0, 2, (min(_AT_ONCE, permutations - first), len(differences)), np.int8) * 2 - 1
        hits += int((np.abs(signs @ differences) >= observed - 1e-9).sum())
    return (hits + 1) / (permutations + 1)


def least_questions(alpha: float) -> int:
    """How many questions must be asked for a difference to be significant, were each answered worse: of n signs that
    are chance, all are the same at a probability of 2 / 2ⁿ."""
    return math.floor(1 - math.log2(alpha)) + 1


def compare(baseline: Baseline, run: Baseline, *, column: str | None = None, alpha: float = ALPHA) -> Comparison:
    """Compare every column that both have; `column` None judges the served and the fused one, else that one alone.

    Raises InvalidRequestError if they did not answer the same questions under the same judgements.
    """
    if baseline.fingerprint != run.fingerprint or set(baseline.questions) != set(run.questions):
        raise InvalidRequestError(
            f"the baseline asked {len(baseline.questions)} questions of {baseline.name!r}, the run "
            f"{len(run.questions)} of {run.name!r}, or their judgements differ: evaluate the same, without --limit"
        )
    pairs = _pairs(baseline, run)
    if column is None:
        judged = {SERVED, FUSED}
    elif column in pairs or column == run.served == baseline.served:
        judged = {column if column in pairs else SERVED}
    else:
        raise InvalidRequestError(f"no column {column!r} in both: there are {', '.join(map(repr, pairs))}")
    compared = []
    for name, (before, after) in pairs.items():
        d = after - before
        d[np.abs(d) < _SAME] = 0
        counts = int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum())
        p = randomisation_test(d)
        means = float(before.mean()), float(after.mean())
        compared.append(Compared(name, *means, p, *counts, is_judged=name in judged, alpha=alpha))
    before, after = pairs[SERVED]
    deltas = dict(zip(baseline.questions, (after - before).tolist(), strict=True))
    return Comparison(baseline, run, tuple(compared), deltas)


def _pairs(baseline: Baseline, run: Baseline) -> dict[str, tuple[Float64, Float64]]:
    """Values by column, both in the baseline's order of questions; the served ones first, whatever they are called."""
    place = {id_: i for i, id_ in enumerate(run.questions)}
    order = [place[id_] for id_ in baseline.questions]
    shared = {SERVED: (baseline.served, run.served)}
    shared |= {name: (name, name) for name in baseline.values if name in run.values and (name, name) != shared[SERVED]}
    return {
        name: (np.array(baseline.values[before]), np.array(run.values[after])[order])
        for name, (before, after) in shared.items()
    }
