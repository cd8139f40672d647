"""`python -m eval.answerability`: which questions are refused before anything is generated, and at what price.

The threshold is chosen on every other question, evenly spread, and reported on the rest.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from eval import command
from eval.answer_metrics import Table, auc, quantile, refused
from eval.squad import FOLDER, KINDS, Asked, ask_all, serve_squad
from server.answerable import DEFAULT_THRESHOLD, EXTRACTIVE_THRESHOLD

WANTED = 0.90  # of the questions from another corpus, refused
WRONG_REFUSALS = (0.01, 0.02, 0.05, 0.10, 0.20, 0.30, 0.50)


def scores(asked: Sequence[Asked], kind: str, half: int | None = None) -> list[float]:
    """Answerability of the questions of a kind: all, or every other one from the first (0) or the second (1)."""
    found = [a.score for a in asked if a.kind == kind]
    return found if half is None else found[half::2]


def choose_threshold(asked: Sequence[Asked]) -> float:
    """The lowest hundredth that refuses WANTED of the foreign questions of the first half."""
    foreign = scores(asked, "foreign", 0)
    return next(t / 100 for t in range(101) if refused(foreign, t / 100) >= WANTED)


def answerability_tables(asked: Sequence[Asked]) -> str:
    """The chosen threshold on both halves, then the whole curve."""
    threshold = choose_threshold(asked)
    steps = sorted({round(threshold + d / 100, 2) for d in range(-6, 5)} | {DEFAULT_THRESHOLD, EXTRACTIVE_THRESHOLD})
    halves = [
        [f"**{t:.2f}**" if t == threshold else f"{t:.2f}"]
        + [f"{refused(scores(asked, kind, half), t):.3f}" for kind in KINDS for half in (0, 1)]
        for t in steps
    ]
    answerable, adversarial, foreign = (scores(asked, kind) for kind in KINDS)
    curve = []
    for share in WRONG_REFUSALS:
        at = quantile(answerable, share)
        curve.append([f"{share:.2f}", f"{at:.3f}", f"{refused(adversarial, at):.3f}", f"{refused(foreign, at):.3f}"])
    dense = quantile([a.result.best_dense for a in asked if a.kind == "answerable"], refused(answerable, threshold))
    heads = [f"{kind}, {half} half" for kind in KINDS for half in ("1st", "2nd")]
    return "\n\n".join(
        [
            f"{len(answerable)} answerable, {len(adversarial)} adversarial, {len(foreign)} foreign questions; area "
            f"under the curve {auc(answerable, foreign):.3f} foreign, {auc(answerable, adversarial):.3f} adversarial. "
            f"Chosen on the first half: **{threshold:.2f}** (the code has {DEFAULT_THRESHOLD}); as many answerable "
            f"questions have no cosine above {dense:.2f}.",
            str(Table(["refused below", *heads], halves)),
            str(Table(["wrong refusals", "threshold", "adversarial refused", "foreign refused"], curve)),
        ]
    )


async def _run(data: Path, folder: Path, count: int) -> None:
    async with serve_squad(data, folder) as squad:
        print(answerability_tables(await ask_all(squad, data, count)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.answerability", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds squad/ and scifact/")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the data folder, kept between runs")
    parser.add_argument("--questions", type=int, default=3000, help="of each kind")
    given = parser.parse_args()
    asyncio.run(_run(given.data, given.folder, given.questions))


if __name__ == "__main__":
    command.run(main)
