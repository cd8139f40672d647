"""A namespace of the faiss index: its file, and in memory its vectors and who sees them. Blocking; for any threads."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from indexers.base import Float32, Hit, IndexUnavailableError, Metadata, Point, StoredPoint, View
from indexers.faiss_postings import Postings
from indexers.faiss_rows import Row, Rows, map_errors
from indexers.faiss_vectors import Mask, make_vectors
from indexers.point import checked_vector
from indexers.readers_writer import ReadersWriterLock


class Partition:
    """An open namespace. What is in memory follows from the file: it is read anew after a write that failed, and when
    `rebuild_from` points, and more than are left, have been removed."""

    def __init__(self, folder: Path, *, rebuild_from: int, on_gpu: bool) -> None:
        self._rows = Rows(folder)
        self.spec = self._rows.namespace.collection
        self.name = self._rows.namespace.name
        self._on_gpu = on_gpu
        self._rebuild_from = rebuild_from
        self._lock = ReadersWriterLock()
        self._file = Lock()  # readers take turns at the file
        self._is_closed = False
        self._load()

    def close(self) -> None:
        with self._lock.writing(), map_errors(self.name):
            if not self._is_closed:
                self._is_closed = True
                self._rows.flush()
                self._rows.close()

    def flush(self) -> None:
        with self._writing():
            self._rows.flush()

    # --- reading

    def search(self, vector: Float32, view: View, count: int) -> list[Hit]:
        """The best `count` visible points, best first."""
        query = checked_vector(self.spec, vector)
        with self._reading():
            seen = self._postings.seen(view)
            scores, places = self._vectors.nearest(query, seen, count)
            return [Hit(self._ids[place], float(score)) for place, score in zip(places, scores, strict=True)]

    def fetch(self, ids: Sequence[str], view: View) -> list[Point]:
        with self._reading():
            seen = self._postings.seen(view)
            places = [place for id_ in dict.fromkeys(ids) for place in self._versions.get(id_, ()) if seen[place]]
            return [stored.point for stored in self._read(places)]

    def scan(self, view: View | None, after: int, limit: int) -> tuple[list[StoredPoint], int | None]:
        """A page of points whose rows come after that one, and the last one's row if there are more."""
        with self._reading():
            seen = self._postings.there() if view is None else self._postings.seen(view)
            places = np.flatnonzero(seen & (np.array(self._numbers) > after))
            page = places[:limit].tolist()
            return self._read(page), self._numbers[page[-1]] if len(places) > limit else None

    def count(self, view: View | None) -> int:
        with self._reading():
            seen = self._postings.there() if view is None else self._postings.seen(view)
            return int(seen.sum())

    # --- writing

    def put(self, points: Sequence[Point], commit: int) -> None:
        """Store checked points, and give their older live versions died = commit."""
        with self._writing():
            self._put(points, commit)

    def end(self, ids: Sequence[str], commit: int) -> None:
        """Give the live points under these ids died = commit."""
        with self._writing():
            self._end(self._live(ids, commit), commit)

    def patch(self, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int) -> None:
        """Copy the newest live version under each id with checked metadata merged in, and end the older one."""
        with self._writing():
            found = sorted(self._read(self._live(ids, commit)), key=lambda stored: stored.born)
            copies = [
                replace(
                    point,
                    metadata={**point.metadata, **metadata},
                    groups=point.groups if groups is None else groups,
                )
                for point in {stored.point.id: stored.point for stored in found}.values()
            ]
            self._put(copies, commit)

    def undo(self, commit: int) -> None:
        with self._writing():
            self._remove(self._postings.born_after(commit))
            self._end(np.flatnonzero(self._postings.died_after(commit)).tolist(), None)

    def sweep(self, horizon: int) -> int:
        with self._writing():
            return self._remove(self._postings.died_until(horizon))

    def purge(self, ids: Sequence[str]) -> None:
        with self._writing():
            mask = self._postings.nothing()
            mask[[place for id_ in ids for place in self._versions.get(id_, ())]] = True
            self._remove(mask)

    # --- inside

    def _load(self) -> None:
        self._postings = Postings()
        self._vectors = make_vectors(self.spec.dimension, self.spec.metric, on_gpu=self._on_gpu)
        self._numbers = array("q")  # the row of each place
        self._ids: list[str] = []
        self._versions: defaultdict[str, list[int]] = defaultdict(list)  # the places of each id
        self._removed = 0
        for batch in self._rows.batches():
            self._remember(batch)
        self._is_loaded = True

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._is_loaded:
            with self._writing():
                pass
        with self._lock.reading(), map_errors(self.name):
            self._check_open()
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock.writing(), map_errors(self.name):
            self._check_open()
            if not self._is_loaded:
                self._load()
            try:
                yield
            except BaseException:
                self._is_loaded = False
                raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise IndexUnavailableError("the index is closed; open it again")

    def _read(self, places: Sequence[int]) -> list[StoredPoint]:
        with self._file:
            return [row.stored for row in self._rows.read([self._numbers[place] for place in places])]

    def _live(self, ids: Sequence[str], born_until: int) -> list[int]:
        places = [place for id_ in dict.fromkeys(ids) for place in self._versions.get(id_, ())]
        return self._postings.live(places, born_until)

    def _put(self, points: Sequence[Point], commit: int) -> None:
        ids = [point.id for point in points]
        ended = self._live(ids, commit - 1)
        replaced = self._postings.nothing()
        replaced[[p for id_ in ids for p in self._versions.get(id_, ()) if self._postings.born(p) == commit]] = True
        numbers = self._rows.replace(points, commit, [self._numbers[place] for place in ended])
        self._postings.end(ended, commit)
        self._forget(replaced)
        stored = (StoredPoint(point, commit, None) for point in points)
        self._remember([Row(number, one) for number, one in zip(numbers, stored, strict=True)])

    def _end(self, places: Sequence[int], died: int | None) -> None:
        self._rows.end([self._numbers[place] for place in places], died)
        self._postings.end(places, died)

    def _remove(self, mask: Mask) -> int:
        places = np.flatnonzero(mask).tolist()
        self._rows.remove([self._numbers[place] for place in places])
        self._forget(mask)
        if self._removed >= max(self._rebuild_from, len(self._postings) - self._removed):
            self._load()
        return len(places)

    def _remember(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        self._vectors.add(np.stack([row.stored.point.vector for row in rows]))
        for row in rows:
            point = row.stored.point
            self._versions[point.id].append(self._postings.add(point, row.stored.born, row.stored.died))
            self._ids.append(point.id)
            self._numbers.append(row.number)

    def _forget(self, mask: Mask) -> None:
        places = np.flatnonzero(mask).tolist()
        self._postings.remove(places)
        for place in places:
            versions = self._versions[self._ids[place]]
            versions.remove(place)
            if not versions:
                del self._versions[self._ids[place]]
        self._removed += len(places)
