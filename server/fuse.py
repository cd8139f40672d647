"""Reciprocal rank fusion: many rankings of ids in, one out."""

from collections.abc import Mapping, Sequence


def ranks(ranking: Sequence[str]) -> dict[str, int]:
    """The place of each id, from 1: its first, if it stands there twice."""
    return dict(zip(reversed(ranking), range(len(ranking), 0, -1), strict=True))


def rrf(
    rankings: Sequence[Mapping[str, int]],
    k: int = 60,
    weights: Sequence[float] | None = None,
    limit: int | None = None,
) -> list[tuple[str, float]]:
    """Fuse rankings, ids with their ranks, by rank alone: score(d) = Σ_i w_i / (k + rank_i(d)).

    Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009; k = 60 is theirs. An id that a ranking lacks gets nothing from it. Ties go to the smaller id. The best
    `limit` are returned (None: all); no rankings, or empty ones, give [].
    """
    if weights is not None and len(weights) != len(rankings):
        raise ValueError(f"{len(weights)} weights for {len(rankings)} rankings: give one each")
    scores: dict[str, float] = {}
    for i, ranking in enumerate(rankings):
        weight = 1.0 if weights is None else weights[i]
        for id_, rank in ranking.items():
            scores[id_] = scores.get(id_, 0.0) + weight / (k + rank)
    if limit is None or limit >= len(scores):
        best = [(-score, id_) for id_, score in scores.items()]
    else:  # comparing numbers first leaves few ids to compare
        least = sorted(scores.values(), reverse=True)[limit - 1] if limit > 0 else float("inf")
        best = [(-score, id_) for id_, score in scores.items() if score >= least]
    return [(id_, -negated) for negated, id_ in sorted(best)[:limit]]
