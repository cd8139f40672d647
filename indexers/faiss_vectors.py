"""A namespace's vectors in faiss: an exhaustive search among those that a mask lets through, on the CPU or a GPU."""

from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from indexers.base import Float32, IndexUnavailableError, Metric

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

_MOST_ON_GPU = 2048  # hits that faiss returns from a GPU
_OVERFETCH = 4


class Vectors(Protocol):
    """Vectors numbered from 0 as they are added."""

    def add(self, vectors: Float32) -> None:
        """Append vectors (n, dimension)."""
        ...

    def nearest(self, query: Float32, seen: Mask, count: int) -> tuple[Float32, Places]:
        """Scores and numbers of the best `count` of the vectors that are seen, best first."""
        ...


def make_vectors(dimension: int, metric: Metric, *, on_gpu: bool) -> Vectors:
    """No vectors yet. `on_gpu` needs a build of faiss with GPU support, and a GPU."""
    kind = faiss.IndexFlatL2 if metric == "euclidean" else faiss.IndexFlatIP
    if not on_gpu:
        return OnCpu(kind(dimension), metric)
    if not has_gpu():
        raise IndexUnavailableError("faiss finds no GPU; install faiss with GPU support, or set faiss_device=cpu")
    return Overfetched(faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, kind(dimension)), metric)


def has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class OnCpu:
    """faiss looks at the mask itself."""

    def __init__(self, index: faiss.Index, metric: Metric) -> None:
        self._index = index
        self._metric = metric

    def add(self, vectors: Float32) -> None:
        self._index.add(_directed(vectors, self._metric))

    def nearest(self, query: Float32, seen: Mask, count: int) -> tuple[Float32, Places]:
        bits = np.packbits(seen, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(seen), faiss.swig_ptr(bits))
        parameters = faiss.SearchParameters()
        parameters.sel = selector
        question = _directed(query[None], self._metric)
        distances, places = self._index.search(question, min(count, max(1, int(seen.sum()))), params=parameters)
        return _scores(distances[0], places[0], self._metric)


class Overfetched:
    """A GPU knows no masks: more hits are asked for than are wanted, and if too few of them are seen, the seen vectors
    are brought here and compared. Either way the result is exact."""

    def __init__(self, index: faiss.Index, metric: Metric) -> None:
        self._index = index
        self._metric = metric

    def add(self, vectors: Float32) -> None:
        self._index.add(_directed(vectors, self._metric))

    def nearest(self, query: Float32, seen: Mask, count: int) -> tuple[Float32, Places]:
        total = int(self._index.ntotal)
        question = _directed(query[None], self._metric)
        asked = min(total, _MOST_ON_GPU, _OVERFETCH * count)
        if asked:
            distances, places = self._index.search(question, asked)
            is_seen = seen[places[0]]
            if asked == total or is_seen.sum() >= count:
                return _scores(distances[0][is_seen][:count], places[0][is_seen][:count], self._metric)
        return self._compare(question[0], np.flatnonzero(seen), count)

    def _compare(self, question: Float32, places: Places, count: int) -> tuple[Float32, Places]:
        if not len(places):
            return np.empty(0, np.float32), places
        vectors = self._index.reconstruct_batch(places)
        if self._metric == "euclidean":
            distances = np.square(vectors - question).sum(axis=1)
            best = np.argsort(distances, kind="stable")[:count]
        else:
            distances = vectors @ question
            best = np.argsort(-distances, kind="stable")[:count]
        return _scores(distances[best], places[best], self._metric)


def _directed(vectors: Float32, metric: Metric) -> Float32:
    """Under the cosine metric, vectors of length 1 (a zero vector stays one, and scores 0)."""
    if metric != "cosine":
        return np.ascontiguousarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms == 0, 1, norms), np.float32)


def _scores(distances: Float32, places: Places, metric: Metric) -> tuple[Float32, Places]:
    is_found = places >= 0  # faiss fills up with -1
    found = distances[is_found]
    scores = -np.sqrt(np.maximum(found, 0)) if metric == "euclidean" else found
    return np.asarray(scores, np.float32), places[is_found]
