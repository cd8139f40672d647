"""`python -m eval.context`: how much of the context can be left out before citations get worse.

The same questions are answered with ever smaller shares of the hits' tokens; what does not fit is cut to its key
sentences. Tokens before are those of all hits whole, by the generator's own count; the goal is 60 % of them at a
citation recall less 0.01.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from eval import command
from eval.answer_metrics import Table, holds
from eval.answers import Answered, answer_all
from eval.squad import FOLDER, Question, Squad, questions_of, serve_squad
from server.frame import frame
from server.pipeline import Pipeline

SHARES = (1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


@dataclass(frozen=True, slots=True)
class Placed:
    """A share's means: tokens of all hits whole and of what was placed, whether the gold answer is among the words
    placed, and whether it is in a cited span."""

    share: float
    before: float
    after: float
    in_context: float
    cited: float
    context_ms: float


async def measure(squad: Squad, questions: Sequence[Question], share: float) -> Placed:
    """Answer every question with a context of that share of the hits' tokens."""
    desk, present = squad.desk, squad.desk.pipeline
    settings = desk.settings.model_copy(update={"context_share": share})
    pipeline = Pipeline(
        settings, desk.catalog, desk.index, writer=desk.writer, models=present.models, chunker=present.chunker
    )
    answered = await answer_all(squad, [("answerable", question) for question in questions], pipeline)
    given = [a for a in answered if a.answer.passages]
    return Placed(
        share=share,
        before=fmean([await _tokens_before(pipeline, a) for a in given]),
        after=fmean([sum(passage.token_count for passage in a.answer.passages) for a in given]),
        in_context=fmean([_is_in_context(a) for a in answered]),
        cited=fmean([any(span.holds_gold for span in a.cited) for a in answered]),
        context_ms=fmean([a.answer.timings_ms.get("context", 0.0) for a in given]),
    )


async def _tokens_before(pipeline: Pipeline, answered: Answered) -> int:
    """Tokens of all hits whole, in their frames."""
    hits = enumerate(answered.answer.search.hits, start=1)
    return sum(await pipeline.models.generator.count_tokens([frame(n, h.chunk.title, h.chunk.text) for n, h in hits]))


def _is_in_context(answered: Answered) -> bool:
    return any(holds(passage.text, answered.question.answers) for passage in answered.answer.passages)


def table(placed: Sequence[Placed]) -> Table:
    rows = [
        [
            f"{one.share:g}",
            f"{one.before:.0f}",
            f"{one.after:.0f}",
            f"{one.after / one.before:.2f}",
            f"{one.in_context:.3f}",
            f"{one.cited:.3f}",
            f"{one.cited - placed[0].cited:+.3f}",
            f"{one.context_ms:.0f}",
        ]
        for one in placed
    ]
    heads = ["share", "tokens before", "tokens after", "placed", "gold answer placed", "citation recall", "Δ", "ms"]
    return Table(heads, rows)


async def _run(given: argparse.Namespace) -> None:
    questions = questions_of(given.data, "answerable", given.answers)
    async with serve_squad(given.data, given.folder, generator=given.generator) as squad:
        placed = []
        for share in given.shares:
            placed.append(await measure(squad, questions, share))
            print(f"{share:g}: {placed[-1].cited:.3f}", flush=True)
    print(f"\n{given.generator}, {len(questions)} answerable questions\n\n{table(placed)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.context", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds squad/")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the data folder, kept between runs")
    parser.add_argument("--generator", default="extractive")
    parser.add_argument("--answers", type=int, default=400, help="questions")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    given = parser.parse_args()
    command.needs(given.data / "squad")
    asyncio.run(_run(given))


if __name__ == "__main__":
    command.run(main)
