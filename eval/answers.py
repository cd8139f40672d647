"""`python -m eval.answers`: which generator answers best, and which questions are refused before any is asked.

SQuAD's questions, its adversarial unanswerable ones, and SciFact's claims, which SQuAD's paragraphs know nothing of.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.answer_metrics import Table, auc, exact_match, f1, holds, quantile, refused, without_markers
from eval.squad import Question, SquadSearch, every, passages_of, read_questions
from models.base import Embedder, GenerationOptions, Generator
from models.extractive import ExtractiveGenerator
from models.fake_generator import FakeGenerator
from models.genai import GenAiGenerator
from models.openvino import OpenVinoEmbedder
from models.refusal import REFUSAL, is_refusal
from models.store import ModelStore
from server.answerable import DEFAULT_THRESHOLD, EXTRACTIVE_THRESHOLD, answerability
from server.base import SearchResult
from server.cite import cite
from server.prompt import build_prompt

KINDS = ("answerable", "adversarial", "foreign")
WANTED = 0.90  # of the questions from another corpus, refused
WRONG_REFUSALS = (0.01, 0.02, 0.05, 0.10, 0.20, 0.30, 0.50)
OPTIONS = GenerationOptions(max_tokens=64, temperature=0, timeout_s=600)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of one of KINDS, what the search found for it, and how answerable that makes it."""

    kind: str
    question: Question
    result: SearchResult
    score: float


@dataclass(frozen=True, slots=True)
class Answered:
    asked: Asked
    text: str
    exact: float
    f1: float
    is_cited: bool  # a cited sentence holds a gold answer
    ms: float


async def ask_all(data: Path, embedder: Embedder, cache: Path, count: int) -> list[Asked]:
    """Up to `count` questions of each kind, evenly spread, each searched."""
    search = await SquadSearch.build(data / "squad" / "corpus.jsonl", embedder, cache)
    files = ("squad/queries.jsonl", "squad/unanswerable.jsonl", "scifact/queries.jsonl")
    asked = []
    for kind, file in zip(KINDS, files, strict=True):
        questions = every(read_questions(data / file), count)
        embeddings = await embedder.embed_queries([q.text for q in questions])
        for question, embedding in zip(questions, embeddings, strict=True):
            result = search.search(question.text, embedding)
            asked.append(Asked(kind, question, result, answerability(result)))
    return asked


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
    return "\n\n".join(
        [
            f"{len(answerable)} answerable, {len(adversarial)} adversarial, {len(foreign)} foreign questions; area "
            f"under the curve {auc(answerable, foreign):.3f} foreign, {auc(answerable, adversarial):.3f} adversarial. "
            f"Chosen on the first half: **{threshold:.2f}** (the code has {DEFAULT_THRESHOLD}); as many answerable "
            f"questions have no cosine above {dense:.2f}.",
            str(
                Table(["refused below", *(f"{kind}, {half} half" for kind in KINDS for half in ("1st", "2nd"))], halves)
            ),
            str(Table(["wrong refusals", "threshold", "adversarial refused", "foreign refused"], curve)),
        ]
    )


async def answer(asked: Asked, generator: Generator, embedder: Embedder, *, passages: int) -> Answered:
    """One answer as the pipeline makes it, from the best passages, with its citations."""
    placed = passages_of(asked.result)[:passages]
    prompt = build_prompt(asked.question.text, placed, ())
    started = time.perf_counter()
    text = "".join([delta.text async for delta in generator.generate(prompt, OPTIONS)])
    ms = (time.perf_counter() - started) * 1e3
    citations, _ = await cite(text, () if is_refusal(text) else placed, embedder)
    return judge(asked, text, [citation.quote for citation in citations], ms)


def judge(asked: Asked, text: str, quotes: Sequence[str], ms: float) -> Answered:
    """The scores of an answer and of the words it cites; a refusal of an answerable question scores 0."""
    golds, said = asked.question.answers, "" if is_refusal(text) else without_markers(text)
    is_cited = any(holds(quote, golds) for quote in quotes)
    return Answered(asked, text, exact_match(said, golds), f1(said, golds), is_cited, ms)


def gated(answers: Sequence[Answered], threshold: float) -> list[Answered]:
    """The answers of a pipeline that refuses below the threshold without generating."""
    return [a if a.asked.score >= threshold else judge(a.asked, REFUSAL, (), 0.0) for a in answers]


def generator_row(name: str, answers: Sequence[Answered]) -> list[str]:
    """One row: of the answerable questions EM, F1, gold cited; refusals of each kind; time of an answer given."""
    of = {kind: [a for a in answers if a.asked.kind == kind] for kind in KINDS}
    answerable = of["answerable"]
    n = max(1, len(answerable))
    times = sorted(a.ms for a in answers if not is_refusal(a.text))
    refusals = [f"{sum(is_refusal(a.text) for a in of[kind]) / max(1, len(of[kind])):.2f}" for kind in KINDS]
    return [
        name,
        " / ".join(str(len(of[kind])) for kind in KINDS),
        f"{sum(a.exact for a in answerable) / n:.3f}",
        f"{sum(a.f1 for a in answerable) / n:.3f}",
        f"{sum(a.is_cited for a in answerable) / n:.3f}",
        *refusals,
        f"{times[len(times) // 2]:.0f}" if times else "-",
    ]


async def generator_table(asked: Sequence[Asked], embedder: Embedder, arguments: argparse.Namespace) -> str:
    """Every generator on the same questions, the language model (and the extractive one again) on some of them."""
    few = [a for kind in KINDS for a in every([a for a in asked if a.kind == kind], arguments.llm_count)]
    extractive = ExtractiveGenerator(embedder)
    first = [await answer(a, FakeGenerator(), embedder, passages=10) for a in asked]
    best = [await answer(a, extractive, embedder, passages=10) for a in asked]
    rows = [
        generator_row("always refuse", [judge(a, REFUSAL, (), 0.0) for a in asked]),
        generator_row("always answer: the first passage's first sentence", first),
        generator_row("extractive", best),
        generator_row(f"extractive, gate {DEFAULT_THRESHOLD}", gated(best, DEFAULT_THRESHOLD)),
        generator_row(f"**extractive, gate {EXTRACTIVE_THRESHOLD}**", gated(best, EXTRACTIVE_THRESHOLD)),
    ]
    if few:
        small = [await answer(a, extractive, embedder, passages=arguments.llm_passages) for a in few]
        said = await language_model_answers(few, embedder, arguments)
        label = f"{arguments.llm}, {arguments.llm_passages} passages"
        rows += [
            generator_row(f"extractive, {arguments.llm_passages} passages", small),
            generator_row(label, said),
            generator_row(f"{label}, gate {DEFAULT_THRESHOLD}", gated(said, DEFAULT_THRESHOLD)),
        ]
    refusals = [f"refused, {kind}" for kind in KINDS]
    head = ["generator", "questions", "exact", "F1", "gold answer in a cited sentence", *refusals, "ms an answer, p50"]
    return str(Table(head, rows))


async def language_model_answers(
    few: Sequence[Asked], embedder: Embedder, arguments: argparse.Namespace
) -> list[Answered]:
    folder = ModelStore(None).resolve(arguments.llm, "generator")
    generator = await asyncio.to_thread(GenAiGenerator.load, folder.path, name=folder.name, fingerprint="")
    try:
        return [await answer(a, generator, embedder, passages=arguments.llm_passages) for a in few]
    finally:
        await generator.close()


async def _run(arguments: argparse.Namespace) -> None:
    embedder = OpenVinoEmbedder.load(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder"))
    try:
        asked = await ask_all(arguments.data, embedder, arguments.cache, arguments.questions)
        print(f"## Answerability\n\n{answerability_tables(asked)}\n", flush=True)
        some = [a for kind in KINDS for a in every([a for a in asked if a.kind == kind], arguments.answers)]
        print(f"## Generators\n\n{await generator_table(some, embedder, arguments)}")
    finally:
        await embedder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.answers", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds squad/ and scifact/")
    parser.add_argument("--cache", type=Path, default=Path(".cache/eval"), help="keeps embeddings between runs")
    parser.add_argument("--questions", type=int, default=3000, help="of each kind, for answerability")
    parser.add_argument("--answers", type=int, default=300, help="of each kind, answered by each generator")
    parser.add_argument("--llm", default="SmolLM2-135M-Instruct", help="name or path of the language model")
    parser.add_argument("--llm-count", type=int, default=40, help="of each kind, answered by it; 0: not loaded")
    parser.add_argument(
        "--llm-passages", type=int, default=3, help="given to it: a CPU reads few hundred tokens a second"
    )
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
