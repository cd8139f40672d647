"""Metrics against values worked out by hand, and against formulas written a second time, on random rankings."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.exact import Exact, recall
from eval.metrics import METRICS, measure, places
from eval.recall import VIEWS, Copied, marked
from eval.recall import measure as measure_recall
from indexers.base import CollectionSpec, Namespace, Point
from indexers.edge import EdgeIndex
from models.base import Passage
from models.fake import FakeEmbedder


def test_metrics_worked_out_by_hand() -> None:
    qrels = {"a": {"x": 2, "y": 1}, "b": {"z": 1}, "c": {"x": 1}}
    rankings = {"a": ["y", "o", "x"], "b": [f"o{i}" for i in range(10)] + ["z"]}  # c has no results
    scores = measure(qrels, rankings)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    ndcg_a = (1 / math.log2(2) + 2 / math.log2(4)) / ideal
    assert scores.per_question["nDCG@10"] == pytest.approx({"a": ndcg_a, "b": 0, "c": 0})
    assert scores.mean == pytest.approx(
        {
            "nDCG@10": ndcg_a / 3,
            "recall@10": 1 / 3,
            "recall@100": 2 / 3,
            "precision@5": 2 / 5 / 3,
            "MRR@10": 1 / 3,  # z at place 11 is a miss
        }
    )


def test_nobody_found_anything() -> None:
    assert measure({"a": {"x": 1}}, {}).mean == dict.fromkeys(METRICS, 0)
    assert measure({"a": {"x": 1}}, {"a": []}).mean == dict.fromkeys(METRICS, 0)


def test_places_of_what_is_relevant() -> None:
    assert places({"x": 1, "y": 0, "z": 3}, ["y", "z", "o", "x"]) == [2, 4]


# --- the second implementation ---------------------------------------------------------------------------------------


def second(grades: Mapping[str, int], ranking: Sequence[str]) -> dict[str, float]:
    """The five metrics from their definitions: sums over places, nothing shared with the first implementation."""
    relevant = {item for item, grade in grades.items() if grade > 0}
    gains = [max(grades.get(item, 0), 0) for item in ranking]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)

    def dcg(values: Sequence[int]) -> float:
        return sum(value / math.log2(place + 1) for place, value in enumerate(values[:10], start=1))

    first = next((place for place, item in enumerate(ranking[:10], start=1) if item in relevant), None)
    return {
        "nDCG@10": dcg(gains) / dcg(ideal) if ideal else 0.0,
        "recall@10": len(relevant & set(ranking[:10])) / len(relevant) if relevant else 0.0,
        "recall@100": len(relevant & set(ranking[:100])) / len(relevant) if relevant else 0.0,
        "precision@5": len(relevant & set(ranking[:5])) / 5,
        "MRR@10": 1 / first if first else 0.0,
    }


ITEMS = [f"d{i:03}" for i in range(130)]
# Few distinct scores, so that most items tie; a tie goes to the smaller id, as everywhere in refdesk.
scored = st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 5), max_size=130)
judgements = st.dictionaries(st.sampled_from(ITEMS), st.integers(-1, 3), max_size=20)
questions = st.dictionaries(st.sampled_from([f"q{i}" for i in range(6)]), st.tuples(judgements, st.none() | scored))


@given(questions)
def test_random_rankings_agree_with_the_second_implementation(
    asked: dict[str, tuple[dict[str, int], dict[str, int] | None]],
) -> None:
    rankings = {
        question: sorted(scores, key=lambda item, by=scores: (-by[item], item))  # type: ignore[misc]
        for question, (_, scores) in asked.items()
        if scores is not None  # None: the question is missing from the run
    }
    found = measure({question: grades for question, (grades, _) in asked.items()}, rankings)
    wanted = {question: second(grades, rankings.get(question, [])) for question, (grades, _) in asked.items()}
    for metric in METRICS:
        assert found.per_question[metric] == pytest.approx({q: values[metric] for q, values in wanted.items()})
        mean = sum(values[metric] for values in wanted.values()) / max(1, len(wanted))
        assert found.mean[metric] == pytest.approx(mean)


@pytest.mark.parametrize("points", [30, 200])
async def test_a_view_that_sees_few_points_loses_nothing_by_that(tmp_path: Path, points: int) -> None:
    index, embedder = EdgeIndex.open(tmp_path / "index"), FakeEmbedder()
    try:
        passages = [Passage(f"pump {i} of hall {i % 7}") for i in range(points)]
        vectors = np.stack([one.vector for one in await embedder.embed_passages(passages)])
        ids = [f"{i:032x}" for i in range(points)]
        namespace = Namespace(CollectionSpec("docs", vectors.shape[1]), "default")
        await index.create(namespace)
        await index.put(namespace, [marked(Point(ids[i], vectors[i]), i) for i in range(points)], 1)
        copied = Copied(namespace, vectors, np.array(ids))
        for view in VIEWS:
            found = await measure_recall(index, copied, await embedder.embed_queries(["pump 3", "hall 5"]), view)
            assert found[:3] == (copied.seen_by(view).sum(), 1, min(100, copied.seen_by(view).sum()))
    finally:
        await index.close()


def test_recall_against_exact_counts_ties_as_found() -> None:
    exact = Exact(np.array([["a", "b", "c"]]), np.array([[0.9, 0.5, 0.5]], np.float32))
    assert recall([["a", "b"]], exact, 2) == 1
    assert recall([["a", "c"]], exact, 2) == 1  # as near as b
    assert recall([["b", "c"]], exact, 1) == 0
    assert recall([["b", "x"]], exact, 2) == 0.5
