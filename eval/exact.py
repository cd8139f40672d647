"""What the dense leg's approximate scan loses: its lists against an exact search of the same vectors by faiss."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from indexers.base import Float32, Index, View
from server.base import NamespaceState

DEPTHS = (10, 100)
_PAGE = 4096  # points read at once: memory stays flat, whatever the collection
_TIE = 1e-5  # scores closer than float32 tells apart at this dimension are the same


@dataclass(frozen=True, slots=True)
class Exact:
    """The best of each question: ids (questions, k) and their inner products, best first; "" and -inf where none is."""

    ids: NDArray[np.str_]
    scores: Float32


async def search_exactly(index: Index, state: NamespaceState, questions: Float32, k: int = DEPTHS[-1]) -> Exact:
    """The k nearest of every question (n, dimension) by inner product, over all points the namespace holds."""
    best = Exact(np.zeros((len(questions), 0), "U64"), np.zeros((len(questions), 0), np.float32))
    after: str | None = None
    while True:
        page, after = await index.scan(state.namespace, View(state.commit), after, _PAGE)
        if page:
            vectors = np.stack([stored.point.vector for stored in page]).astype(np.float32)
            ids = np.array([stored.point.id for stored in page])
            scores, places = faiss.knn(questions, vectors, min(k, len(page)), metric=faiss.METRIC_INNER_PRODUCT)
            best = _merge(best, Exact(ids[places], scores), k)
        if after is None:
            return best


def recall(found: Sequence[Sequence[str]], exact: Exact, k: int) -> float:
    """Mean share of the exact k nearest that a ranking's first k hold. One at the k-th score is as good as another."""
    shares = []
    for ranking, ids, scores in zip(found, exact.ids, exact.scores, strict=True):
        wanted = min(k, len(ids))
        if wanted:
            equals = set(ids[scores >= scores[wanted - 1] - _TIE].tolist())
            shares.append(min(wanted, len(equals & set(ranking[:k]))) / wanted)
    return float(np.mean(shares)) if shares else 1.0


def _merge(one: Exact, other: Exact, k: int) -> Exact:
    ids, scores = np.hstack([one.ids, other.ids]), np.hstack([one.scores, other.scores])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Exact(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))
