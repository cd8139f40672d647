"""`refdesk eval accept RUN FILE`: a run becomes the baseline that later ones are compared with, a FILE to commit."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.record import as_baseline, read_run, write


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="refdesk eval accept", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's JSON")
    parser.add_argument("baseline", type=Path, help="the file to write")
    given = parser.parse_args(arguments)
    baseline = as_baseline(read_run(given.run))
    write(baseline, given.baseline)
    print(f"{len(baseline.questions)} questions in {len(baseline.values)} columns: {given.baseline}")
    return 0
