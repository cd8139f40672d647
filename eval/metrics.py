"""Retrieval metrics by ir_measures over pytrec_eval, which computes them as trec_eval does.

A question without results counts 0 in every one. A ranking's order alone decides: there are no ties.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
from ir_measures import RR, P, R, nDCG

JUDGED = "nDCG@10"  # what two runs are compared by
METRICS = (JUDGED, "recall@10", "recall@100", "precision@5", "MRR@10")
_MEASURES = {JUDGED: nDCG @ 10, "recall@10": R @ 10, "recall@100": R @ 100, "precision@5": P @ 5}
_RR_DEPTH = 10

Qrels = Mapping[str, Mapping[str, int]]  # question id → what answers it → grade; above 0 is relevant


@dataclass(frozen=True, slots=True)
class Scores:
    """`mean` by metric over all questions judged; `per_question` by metric, then by question id."""

    mean: Mapping[str, float]
    per_question: Mapping[str, Mapping[str, float]]


def measure(qrels: Qrels, rankings: Mapping[str, Sequence[str]]) -> Scores:
    """Score rankings (question id to document ids, best first, each once) against graded judgements.

    nDCG by Järvelin & Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with gain = grade and
    log2 discount. pytrec_eval's reciprocal rank has no depth, so it is given the first ten alone.
    """
    judged = {question: dict(grades) for question, grades in qrels.items()}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in METRICS}
    names = {measure: name for name, measure in _MEASURES.items()}
    for metric in ir_measures.pytrec_eval.iter_calc(list(names), judged, _run(rankings)):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    first = {question: ranking[:_RR_DEPTH] for question, ranking in rankings.items()}
    for metric in ir_measures.pytrec_eval.iter_calc([RR], judged, _run(first)):
        values["MRR@10"][metric.query_id] = float(metric.value)
    mean = {name: sum(each.values()) / max(1, len(each)) for name, each in values.items()}
    return Scores(mean, values)


def places(grades: Mapping[str, int], ranking: Sequence[str]) -> list[int]:
    """Where the relevant ones stand in a ranking, from 1, ascending; those that are not in it are left out."""
    return [place for place, item in enumerate(ranking, start=1) if grades.get(item, 0) > 0]


def _run(rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Rankings as trec_eval wants them: a score that falls with the place."""
    return {
        question: {document: float(-place) for place, document in enumerate(ranking)}
        for question, ranking in rankings.items()
        if ranking
    }
