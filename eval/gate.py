"""`refdesk eval compare BASELINE RUN`: is a run worse than a baseline? Exit code 1 if it is, beyond chance.

Judged are the columns that a search may return: the served one and, for searches without reranking, the fused one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eval.compare import ALPHA, SERVED, Comparison, compare, least_questions
from eval.page import write_page
from eval.record import read_baseline, read_run
from server.base import InvalidRequestError


def table(comparison: Comparison) -> Table:
    """A column a row; what is judged in bold."""
    served = [comparison.baseline.served, comparison.run.served]
    name = served[0] if served[0] == served[1] else " → ".join(served)
    found = Table(
        title=f"{comparison.baseline.metric} of {comparison.baseline.name}; judged is what is bright",
        title_justify="left",
    )
    for head in ("", "baseline", "run", "Δ", "p", "win / tie / loss", "verdict"):
        found.add_column(head, justify="left" if head in ("", "verdict") else "right")
    for one in comparison.columns:
        found.add_row(
            f"{SERVED} ({name})" if one.column == SERVED else one.column,
            f"{one.baseline:.3f}",
            f"{one.run:.3f}",
            f"{one.delta:+.3f}",
            f"{one.p:.4f}",
            f"{one.wins} / {one.ties} / {one.losses}",
            one.verdict,
            style="bold" if one.is_judged else "dim",
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="refdesk eval compare", description=__doc__)
    parser.add_argument("baseline", type=Path, help="a run's JSON, or what `refdesk eval accept` made of one")
    parser.add_argument("run", type=Path, help="a run's JSON")
    parser.add_argument("--column", help="judge this column alone; default: the served and the fused one")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the run's page with the comparison in it")
    parser.add_argument("--alpha", type=float, default=ALPHA, help="significance level; default %(default)s")
    given = parser.parse_args(arguments)
    if not 0 < given.alpha < 1:
        raise InvalidRequestError(f"--alpha {given.alpha:g} is no significance level: give one between 0 and 1")
    baseline, run = read_baseline(given.baseline), read_baseline(given.run)
    comparison = compare(baseline, run, column=given.column, alpha=given.alpha)
    Console().print(table(comparison))
    if given.html:
        write_page(read_run(given.run), given.html, comparison)
    if (needed := least_questions(given.alpha)) > len(baseline.questions):
        raise InvalidRequestError(
            f"{len(baseline.questions)} questions cannot show a difference at α {given.alpha:g}, however large: ask "
            f"{needed} or more"
        )
    print("worse than the baseline, beyond chance" if comparison.is_worse else "not worse than the baseline")
    return 1 if comparison.is_worse else 0
