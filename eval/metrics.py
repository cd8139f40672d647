"""Retrieval metrics by ir_measures over pytrec_eval, which computes them as trec_eval does.

A question without results counts 0 in every one. A ranking's order alone decides: there are no ties.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
from ir_measures import RR, P, R, nDCG

METRICS = ("nDCG@10", "recall@10", "recall@100", "precision@5", "MRR@10")
_MEASURES = {"nDCG@10": nDCG @ 10, "recall@10": R @ 10, "recall@100": R @ 100, "precision@5": P @ 5}
_RR_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """`mean` by metric over all questions judged; `per_question` the nDCG@10 of each."""

    mean: Mapping[str, float]
    per_question: Mapping[str, float]


def measure(qrels: Mapping[str, Mapping[str, int]], rankings: Mapping[str, Sequence[str]]) -> Scores:
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
    return Scores(mean, values["nDCG@10"])


def _run(rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Rankings as trec_eval wants them: a score that falls with the place."""
    return {
        question: {document: float(-place) for place, document in enumerate(ranking)}
        for question, ranking in rankings.items()
        if ranking
    }
