"""`python -m eval.extraction`: how the extractive generator finds its sentences, and what its constants are worth.

SQuAD's questions, each with the ten passages searched for it. Every other question chooses, the rest report.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eval import command
from eval.answer_metrics import Table, auc, holds, refused
from eval.squad import FOLDER, KINDS, Asked, Squad, ask_all, serve_squad
from models.base import Float32, Passage, QueryEmbedding
from models.extractive import (
    MARGIN,
    MAX_SENTENCES,
    OVERLAP,
    PRIOR,
    REFUSAL_THRESHOLD,
    SHORTLIST,
    SHORTLIST_PRIOR,
    split,
)
from models.late_interaction import max_sim
from models.overlap import overlap

SHORTLISTS = (2, 4, 6, 8, 12, 10_000)
MARGINS = (0.0, 0.05, 0.1, 0.15, 0.2)
THRESHOLDS = (0.45, 0.5, 0.52, 0.55, 0.57, 0.6, 0.65)


@dataclass(frozen=True, slots=True)
class Considered:
    """A question's sentences, each (n,): the parts of its support, and whether it holds the gold answer."""

    kind: str
    score: float  # answerability
    max_sim: Float32
    cosine: Float32
    overlap: Float32
    prior: Float32  # 1 / rank of the passage
    gold: Float32

    def support(self, *, similarity: Float32 | None = None, overlap: float = OVERLAP, prior: float = PRIOR) -> Float32:
        parts = self.max_sim if similarity is None else similarity
        support: Float32 = parts + np.float32(overlap) * self.overlap + np.float32(prior) * self.prior
        return support

    def order(self, support: Float32, shortlist: int = SHORTLIST) -> list[int]:
        """Indices of the sentences, best first, of those that the shortlist leaves."""
        worth = self.overlap + SHORTLIST_PRIOR * self.prior
        left = np.argsort(-worth, kind="stable")[:shortlist]
        return [int(i) for i in left[np.argsort(-support[left], kind="stable")]]


async def consider(asked: Sequence[Asked], squad: Squad) -> list[Considered]:
    """Every sentence of every question's passages, embedded once."""
    embedder = squad.desk.pipeline.models.embedder
    lists = [split([hit.chunk.text for hit in a.result.hits]) for a in asked]
    texts = list({s.scored: None for sentences in lists for s in sentences})
    limit = embedder.info.max_tokens - embedder.info.special_tokens
    tokens = embedder.tokenizer.encode_batch(texts)
    made = await embedder.embed_passages([Passage(t, ids.ids[:limit]) for t, ids in zip(texts, tokens, strict=True)])
    of = dict(zip(texts, made, strict=True))
    questions: list[QueryEmbedding] = await embedder.embed_queries([a.question.text for a in asked])
    considered = []
    for a, sentences, question in zip(asked, lists, questions, strict=True):
        assert question.token_vectors is not None
        bits = [b for s in sentences if (b := of[s.scored].token_bits) is not None]
        homes = [squad.paragraph_of(a.result.hits[s.number - 1].chunk) for s in sentences]
        gold = [
            holds(s.text, a.question.answers) and home == a.question.paragraph
            for s, home in zip(sentences, homes, strict=True)
        ]
        considered.append(
            Considered(
                a.kind,
                a.score,
                max_sim(question.token_vectors, bits),
                np.stack([of[s.scored].vector for s in sentences]) @ question.vector,
                np.array(overlap(a.question.text, [s.scored for s in sentences]), np.float32),
                np.array([1 / s.number for s in sentences], np.float32),
                np.array(gold, np.float32),
            )
        )
    return considered


def found(considered: Sequence[Considered], order: Callable[[Considered], Sequence[int]], half: int) -> float:
    """Share of the answerable questions of a half with the gold answer among the sentences that `order` gives."""
    answerable = [c for c in considered if c.kind == "answerable"][half::2]
    return sum(any(c.gold[i] for i in order(c)) for c in answerable) / max(1, len(answerable))


def formula_table(considered: Sequence[Considered]) -> str:
    """The gold answer in the first sentence, by each part of the formula and by all."""
    everything = SHORTLISTS[-1]
    parts: dict[str, Callable[[Considered], Float32]] = {
        "cosine": lambda c: c.cosine,
        "MaxSim": lambda c: c.max_sim,
        "overlap": lambda c: c.overlap,
        "cosine / 2 + 0.4 overlap + 0.05 / r": lambda c: c.support(similarity=c.cosine * np.float32(0.5)),
        "MaxSim + 0.2 overlap": lambda c: c.support(overlap=0.2, prior=0),
        "MaxSim + 0.4 overlap": lambda c: c.support(prior=0),
        "MaxSim + 0.8 overlap": lambda c: c.support(overlap=0.8, prior=0),
        "**MaxSim + 0.4 overlap + 0.05 / r**": lambda c: c.support(),
        "MaxSim + 0.4 overlap + 0.2 / r": lambda c: c.support(prior=0.2),
    }
    rows = [
        [name, *(f"{found(considered, lambda c, s=score: c.order(s(c), everything)[:1], half):.3f}" for half in (0, 1))]  # type: ignore[misc]
        for name, score in parts.items()
    ]
    return str(Table(["gold answer in the first sentence", "1st half", "2nd half"], rows))


def shortlist_table(considered: Sequence[Considered]) -> str:
    """What embedding fewer sentences costs: the gold answer in the first, and in one of those that are given."""
    rows = []
    for size in SHORTLISTS:
        label = "all" if size == SHORTLISTS[-1] else f"**{size}**" if size == SHORTLIST else str(size)
        first = [found(considered, partial(_given, margin=0, shortlist=size), half) for half in (0, 1)]
        given = [found(considered, partial(_given, margin=MARGIN, shortlist=size), half) for half in (0, 1)]
        rows.append([label, *(f"{share:.3f}" for share in (*first, *given))])
    head = ["sentences embedded", "first, 1st half", "first, 2nd half", "given, 1st half", "given, 2nd half"]
    return str(Table(head, rows))


def margin_table(considered: Sequence[Considered]) -> str:
    """How many sentences are given, and how often the gold answer is in one."""
    answerable = [c for c in considered if c.kind == "answerable"]
    rows = []
    for margin in MARGINS:
        given = [_given(c, margin) for c in answerable]
        share = sum(any(c.gold[i] for i in chosen) for c, chosen in zip(answerable, given, strict=True)) / len(given)
        label = f"**{margin}**" if margin == MARGIN else f"{margin}"
        rows.append([label, f"{sum(map(len, given)) / len(given):.2f}", f"{share:.3f}"])
    return str(Table(["margin", "sentences given", "gold answer in one"], rows))


def refusal_table(considered: Sequence[Considered]) -> str:
    """What the threshold on the best support refuses."""
    best = {kind: [float(c.support()[c.order(c.support())[0]]) for c in considered if c.kind == kind] for kind in KINDS}
    rows = [
        [f"**{t}**" if t == REFUSAL_THRESHOLD else str(t)]
        + [f"{refused(best[kind][half::2], t):.3f}" for kind in KINDS for half in (0, 1)]
        for t in THRESHOLDS
    ]
    curves = ", ".join(f"{auc(best['answerable'], best[kind]):.3f} {kind}" for kind in KINDS[1:])
    head = ["refused below", *(f"{kind}, {half} half" for kind in KINDS for half in ("1st", "2nd"))]
    return f"Area under the curve of the best support: {curves}.\n\n{Table(head, rows)}"


def _given(c: Considered, margin: float, shortlist: int = SHORTLIST) -> list[int]:
    support = c.support()
    order = c.order(support, shortlist)[:MAX_SENTENCES]
    return [i for i in order if support[i] >= support[order[0]] - margin]


async def _run(arguments: argparse.Namespace) -> None:
    async with serve_squad(arguments.data, arguments.folder) as squad:
        considered = await consider(await ask_all(squad, arguments.data, arguments.questions), squad)
    print(formula_table(considered), shortlist_table(considered), margin_table(considered), sep="\n\n")
    print(f"\n{refusal_table(considered)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.extraction", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds squad/ and scifact/")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the data folder, kept between runs")
    parser.add_argument("--questions", type=int, default=500, help="of each kind")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    command.run(main)
