"""`refdesk eval compare BASELINE RUN`: is a run worse than a baseline? Exit code 1 if it is, beyond chance.

Judged are the columns that a search may return: the served one and, for searches without reranking, the fused one.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from eval.ranking import FUSED
from eval.record import Baseline, read_baseline
from server.base import InvalidRequestError

PERMUTATIONS, SEED, ALPHA = 10_000, 20_261_123, 0.01
_SAME = 1e-4  # what rounding a baseline's values may change
_AT_ONCE = 500  # permutations drawn together: 12 MB at 3,000 questions
_SERVED = "served"

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
        """worse, better, or no difference beyond chance."""
        if self.p >= self.alpha:
            return "no difference"
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
    judged = {column} if column else {_SERVED, FUSED}
    if missing := judged - {_SERVED} - pairs.keys():
        raise InvalidRequestError(f"no column {missing.pop()!r} in both: there are {', '.join(map(repr, pairs))}")
    compared = []
    for name, (before, after) in pairs.items():
        d = after - before
        d[np.abs(d) < _SAME] = 0
        counts = int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum())
        p = randomisation_test(d)
        means = float(before.mean()), float(after.mean())
        compared.append(Compared(name, *means, p, *counts, is_judged=name in judged, alpha=alpha))
    before, after = pairs[_SERVED]
    deltas = dict(zip(baseline.questions, (after - before).tolist(), strict=True))
    return Comparison(baseline, run, tuple(compared), deltas)


def _pairs(baseline: Baseline, run: Baseline) -> dict[str, tuple[Float64, Float64]]:
    """Values by column, both in the baseline's order of questions; the served ones first, whatever they are called."""
    place = {id_: i for i, id_ in enumerate(run.questions)}
    order = [place[id_] for id_ in baseline.questions]
    shared = {_SERVED: (baseline.served, run.served)}
    shared |= {name: (name, name) for name in baseline.values if name in run.values}
    return {
        name: (np.array(baseline.values[before]), np.array(run.values[after])[order])
        for name, (before, after) in shared.items()
    }


def table(comparison: Comparison) -> Table:
    """A column a row; what is judged in bold."""
    served = [comparison.baseline.served, comparison.run.served]
    name = served[0] if served[0] == served[1] else " → ".join(served)
    found = Table(title=f"{comparison.baseline.metric} of {comparison.baseline.name}", title_justify="left")
    for head in ("", "baseline", "run", "Δ", "p", "win / tie / loss", "verdict"):
        found.add_column(head, justify="left" if head in ("", "verdict") else "right")
    for one in comparison.columns:
        found.add_row(
            f"{_SERVED} ({name})" if one.column == _SERVED else one.column,
            f"{one.baseline:.3f}",
            f"{one.run:.3f}",
            f"{one.delta:+.3f}",
            f"{one.p:.4f}",
            f"{one.wins} / {one.ties} / {one.losses}",
            one.verdict + ("" if one.is_judged else " (not judged)"),
            style="bold" if one.is_judged else "",
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="refdesk eval compare", description=__doc__)
    parser.add_argument("baseline", type=Path, help="a run's JSON, or what `refdesk eval accept` made of one")
    parser.add_argument("run", type=Path, help="a run's JSON")
    parser.add_argument("--column", help="judge this column alone; default: the served and the fused one")
    parser.add_argument("--alpha", type=float, default=ALPHA, help="significance level; default %(default)s")
    given = parser.parse_args(arguments)
    comparison = compare(
        read_baseline(given.baseline), read_baseline(given.run), column=given.column, alpha=given.alpha
    )
    Console().print(table(comparison))
    print("worse than the baseline, beyond chance" if comparison.is_worse else "not worse than the baseline")
    return 1 if comparison.is_worse else 0
