"""What the dense leg's quantised scan loses against an exact one, and what filters cost, on the large corpus's vectors.

`python -m eval.recall` (after `python -m eval.corpus`) copies the vectors into an index of its own, half of them for
all, a quarter to each of two groups, one in ten from the site asked for, and asks it real questions.
"""

import argparse
import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from eval import command
from eval.corpus import CHUNK_TOKENS, DESK
from eval.latency import QUERIES, questions
from indexers.base import Float32, Namespace, Point, View
from indexers.edge import EdgeIndex
from indexers.filter import parse_filter
from models.base import QueryEmbedding
from server.build import Desk, build
from server.settings import Settings

COPY = Path(".cache/recall-index")
TOP_K = 100
GROUPS: tuple[tuple[str, ...], ...] = ((), (), ("north",), ("south",))
SITES = 10
VIEWS = {
    "no filter": View(1),
    "one group of two": View(1, groups=frozenset({"north"})),
    "no group": View(1, groups=frozenset()),
    "metadata, one in ten": View(1, filter=parse_filter({"site": "3"})),
    "group and metadata": View(1, groups=frozenset({"north"}), filter=parse_filter({"site": "3"})),
}


@dataclass(frozen=True, slots=True)
class Copied:
    """The vectors (n, dimension) and ids of the copy, in one order."""

    namespace: Namespace
    vectors: Float32
    ids: NDArray[np.str_]

    def seen_by(self, view: str) -> NDArray[np.bool_]:
        """Which points a view sees, worked out without the engine."""
        place = np.arange(len(self.ids))
        seen = np.ones(len(self.ids), bool)
        if "group" in view:
            allowed = (0, 1) if view == "no group" else (0, 1, 2)
            seen &= np.isin(place % len(GROUPS), allowed)
        if "metadata" in view:
            seen &= place // len(GROUPS) % SITES == 3
        return seen


async def copy(desk: Desk, index: EdgeIndex) -> Copied:
    """All points of the corpus into the index, with groups and sites by their place."""
    state = await desk.catalog.namespace("docs", "default")
    await index.create(state.namespace)
    vectors: list[Float32] = []
    ids: list[str] = []
    after: str | None = None
    while True:
        page, after = await desk.index.scan(state.namespace, View(state.commit), after, 4096)
        points = [marked(stored.point, len(ids) + i) for i, stored in enumerate(page)]
        await index.put(state.namespace, points, 1)
        vectors += [point.vector for point in points]
        ids += [point.id for point in points]
        if after is None:
            await index.flush(state.namespace)
            return Copied(state.namespace, np.stack(vectors), np.array(ids))


def marked(point: Point, place: int) -> Point:
    """The point with the groups and the site of its place."""
    site = str(place // len(GROUPS) % SITES)
    return replace(point, groups=GROUPS[place % len(GROUPS)], metadata={"site": site}, text=None)


async def measure(index: EdgeIndex, copied: Copied, asked: Sequence[QueryEmbedding], view: str) -> tuple[float, ...]:
    """(visible points, mean recall@100, least hits returned, p50 ms, p95 ms) of a view.

    Recall is of the best TOP_K points that the view sees, or of all of them if they are fewer; of none it is 1.
    """
    seen = copied.seen_by(view)
    vectors, ids = copied.vectors[seen], copied.ids[seen]
    best = min(TOP_K, len(ids))
    recalls, counts, times = [], [], []
    for question in asked:
        exact = set(ids[np.argpartition(-(vectors @ question.vector), best - 1)[:best]]) if best else set()
        started = time.perf_counter()
        hits = await index.search_dense(copied.namespace, question.vector, VIEWS[view], TOP_K)
        times.append((time.perf_counter() - started) * 1e3)
        recalls.append(len(exact & {hit.id for hit in hits}) / best if best else 1.0)
        counts.append(len(hits))
    p50, p95 = np.percentile(times, [50, 95])
    return float(len(ids)), float(np.mean(recalls)), float(min(counts)), float(p50), float(p95)


async def run(folder: Path, asked: int) -> Table:
    shutil.rmtree(COPY, ignore_errors=True)
    desk = await build(Settings(data_dir=folder, chunk_tokens=CHUNK_TOKENS), command="eval.recall")
    index = EdgeIndex.open(COPY)
    try:
        copied = await copy(desk, index)
        embeddings = await desk.pipeline.models.embedder.embed_queries(questions(asked))
        out = Table(
            "view", "visible", "recall@100", "least hits", "p50 ms", "p95 ms", title=f"{len(copied.ids)} vectors"
        )
        for view in VIEWS:
            visible, recall, least, p50, p95 = await measure(index, copied, embeddings, view)
            out.add_row(view, f"{visible:.0f}", f"{recall:.4f}", f"{least:.0f}", f"{p50:.2f}", f"{p95:.2f}")
        return out
    finally:
        await index.close()
        await desk.close()
        shutil.rmtree(COPY, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DESK)
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    command.needs_desk(arguments.folder)
    command.needs(QUERIES)
    Console().print(asyncio.run(run(arguments.folder, arguments.questions)))


if __name__ == "__main__":
    command.run(main)
