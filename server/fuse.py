"""Reciprocal rank fusion: many rankings of ids in, one out."""

from collections.abc import Sequence


def rrf(
    rankings: Sequence[Sequence[str]], k: int = 60, weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Fuse rankings by rank alone: score(d) = Σ_i w_i / (k + rank_i(d)), ranks from 1.

    Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009; k = 60 is theirs. An id that a ranking lacks gets nothing from it; one that stands in a ranking twice
    counts at its first place. Ties go to the smaller id. No rankings, or empty ones, give [].
    """
    if weights is not None and len(weights) != len(rankings):
        raise ValueError(f"{len(weights)} weights for {len(rankings)} rankings: give one each")
    scores: dict[str, float] = {}
    for i, ranking in enumerate(rankings):
        weight = 1.0 if weights is None else weights[i]
        places = dict(zip(reversed(ranking), range(len(ranking), 0, -1), strict=True))  # the first of each id
        for id_, rank in places.items():
            scores[id_] = scores.get(id_, 0.0) + weight / (k + rank)
    by_score = sorted(sorted(scores), key=scores.__getitem__, reverse=True)
    return [(id_, scores[id_]) for id_ in by_score]
