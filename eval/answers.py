"""`python -m eval.answers`: what the served answers are worth, generator by generator, on questions of three kinds.

Every answer is the pipeline's own, from the search to the citations. Beside it stand baselines that need no generator,
by arithmetic on the same searches: always refuse, always answer with the first passage's first sentence; cite that
sentence, the first passage whole, all passages whole.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from eval import command
from eval.answer_metrics import Table, exact_match, f1, holds, without_markers
from eval.squad import FOLDER, KINDS, Question, Squad, questions_of, serve_squad
from models.sentences import sentence_spans
from server.base import Answer
from server.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Cited:
    """A span that a reader is pointed at: whether a gold answer is in it, and how much there is to read."""

    holds_gold: bool
    words: int


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, judged. `cited`, `passages`: each citation and each hit of the search, in order; `supported`: of each
    sentence; `ms`: the whole answer."""

    kind: str
    question: Question
    answer: Answer
    exact: float
    f1: float
    cited: tuple["Cited", ...]
    passages: tuple["Cited", ...]
    supported: tuple[bool, ...]
    ms: float


async def answer_all(
    squad: Squad, questions: Sequence[tuple[str, Question]], pipeline: Pipeline | None = None
) -> list[Answered]:
    """Answers of (kind, question) pairs, one after the other."""
    answered = []
    for kind, question in questions:
        started = time.perf_counter()
        answer = await squad.answer(question.text, pipeline)
        answered.append(judge(kind, question, answer, (time.perf_counter() - started) * 1e3))
    return answered


def judge(kind: str, question: Question, answer: Answer, ms: float) -> Answered:
    """The scores of an answer; a refusal says nothing, so that of an answerable question scores 0."""
    golds, said = question.answers, "" if answer.refused else without_markers(answer.text)
    return Answered(
        kind,
        question,
        answer,
        exact_match(said, golds),
        f1(said, golds),
        cited=tuple(_cited(citation.quote, golds) for citation in answer.citations),
        passages=tuple(_cited(hit.chunk.text, golds) for hit in answer.search.hits),
        supported=tuple(sentence.supported for sentence in answer.sentences),
        ms=ms,
    )


def _cited(quote: str, golds: Sequence[str]) -> Cited:
    return Cited(holds(quote, golds), len(quote.split()))


def answers_row(name: str, answered: Sequence[Answered]) -> list[str]:
    """One generator: EM and F1 of the answerable questions, refusals of each kind, what an answer costs."""
    of = {kind: [a for a in answered if a.kind == kind] for kind in KINDS}
    answerable = of["answerable"]
    given = [a for a in answered if not a.answer.refused]
    sentences = [supported for a in given for supported in a.supported]
    return [
        name,
        " / ".join(str(len(of[kind])) for kind in KINDS),
        _mean([a.exact for a in answerable], 3),
        _mean([a.f1 for a in answerable], 3),
        *(_mean([a.answer.refused for a in of[kind]], 2) for kind in KINDS),
        _mean([not supported for supported in sentences], 2),
        _mean([a.answer.usage.prompt_tokens for a in given], 0),
        _mean([a.answer.usage.completion_tokens for a in given], 0),
        f"{median(a.ms for a in given):.0f}" if given else "-",
    ]


ANSWERS_HEAD = (
    *("generator", "questions", "EM", "F1", "refused, answerable (wrong)", "refused, adversarial", "refused, foreign"),
    *("sentences unsupported", "prompt tokens", "answer tokens", "ms an answer, p50"),
)


def baseline_rows(name: str, answered: Sequence[Answered]) -> list[list[str]]:
    """What a generator must beat, on its questions: refusing always, and never."""
    of = {kind: [a for a in answered if a.kind == kind] for kind in KINDS}
    said = [(first_sentence(a), a.question.answers) for a in of["answerable"]]
    counts = " / ".join(str(len(of[kind])) for kind in KINDS)
    nothing = [_mean([0.0 for _ in said], 3)] * 2
    sentence = [_mean([score(text, golds) for text, golds in said], 3) for score in (exact_match, f1)]
    refused = {share: [_mean([share for _ in of[kind]], 2) for kind in KINDS] for share in (1.0, 0.0)}
    costs = ["-"] * (len(ANSWERS_HEAD) - 4 - len(KINDS))
    return [
        [f"always refuse ({name}'s questions)", counts, *nothing, *refused[1.0], *costs],
        [f"always answer: the first passage's first sentence ({name}'s)", counts, *sentence, *refused[0.0], *costs],
    ]


def first_sentence(answered: Answered) -> str:
    """Of the first passage found; empty if none was."""
    return next((h.chunk.text[slice(*sentence_spans(h.chunk.text)[0])] for h in answered.answer.search.hits[:1]), "")


def citations_row(name: str, lists: Sequence[Sequence[Cited]]) -> list[str]:
    """Recall: share of answerable questions with a cited span that holds the gold answer; precision: of all spans."""
    return [
        name,
        str(len(lists)),
        _mean([any(span.holds_gold for span in spans) for spans in lists], 3),
        _mean([span.holds_gold for spans in lists for span in spans], 3),
        _mean([len(spans) for spans in lists], 2),
        _mean([sum(span.words for span in spans) for spans in lists], 0),
    ]


CITATIONS_HEAD = ("citations", "questions", "recall", "precision", "spans an answer", "words to read")


def citation_rows(name: str, answered: Sequence[Answered]) -> list[list[str]]:
    """A generator's citations, and the baselines on the same questions."""
    answerable = [a for a in answered if a.kind == "answerable"]
    return [
        citations_row(name, [a.cited for a in answerable]),
        citations_row(
            f"cite the first passage's first sentence ({name}'s questions)",
            [[_cited(first_sentence(a), a.question.answers)] for a in answerable],
        ),
        citations_row(f"cite the first passage ({name}'s questions)", [a.passages[:1] for a in answerable]),
        citations_row(f"cite all ({name}'s questions)", [a.passages for a in answerable]),
    ]


def _mean(values: Sequence[float], decimals: int) -> str:
    return f"{fmean(values):.{decimals}f}" if values else "-"


async def _run(given: argparse.Namespace) -> None:
    answers, citations = [], []
    for generator, count in (("extractive", given.answers), (given.llm, given.llm_answers)):
        if not count:
            continue
        questions = [(kind, question) for kind in KINDS for question in questions_of(given.data, kind, count)]
        async with serve_squad(given.data, given.folder, generator=generator, generation_timeout_s=600) as squad:
            answered = await answer_all(squad, questions)
        name = answered[0].answer.generator if generator == "extractive" else generator
        answers += [answers_row(name, answered), *baseline_rows(name, answered)]
        citations += citation_rows(name, answered)
        print(f"{name}: {len(answered)} answers", flush=True)
    print(f"\n{Table(ANSWERS_HEAD, answers)}\n\n{Table(CITATIONS_HEAD, citations)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.answers", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds squad/ and scifact/")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the data folder, kept between runs")
    parser.add_argument("--answers", type=int, default=200, help="questions of each kind for the extractive generator")
    parser.add_argument("--llm", default="SmolLM2-135M-Instruct", help="name or path of the language model")
    parser.add_argument("--llm-answers", type=int, default=10, help="questions of each kind for it; 0: not loaded")
    given = parser.parse_args()
    command.needs(given.data / "squad", given.data / "scifact")
    asyncio.run(_run(given))


if __name__ == "__main__":
    command.run(main)
