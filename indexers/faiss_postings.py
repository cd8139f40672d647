"""Which of a namespace's points a view sees, as a mask over their places: inverted lists combined by numpy."""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce

import numpy as np

from indexers.base import Point, View
from indexers.faiss_vectors import Mask
from indexers.keywords import compile_filter, group_keywords, halves, keyword, keywords, readable_keywords

_NEVER = 2**62  # the commit at which what lives has died


class Postings:
    """Places are numbered from 0 as points are added; one that was removed keeps its number and is never seen."""

    def __init__(self) -> None:
        self._born, self._died = array("q"), array("q")
        self._is_there = array("b")
        self._groups: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self._keywords: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        self._numbers: defaultdict[str, tuple[array[int], array[int]]] = defaultdict(lambda: (array("q"), array("q")))

    def __len__(self) -> int:
        return len(self._born)

    def add(self, point: Point, born: int, died: int | None) -> int:
        """Returns the point's place."""
        place = len(self)
        self._born.append(born)
        self._died.append(_NEVER if died is None else died)
        self._is_there.append(True)
        for group in group_keywords(point.groups):
            self._groups[group].append(place)
        for word in keywords(point.metadata):
            self._keywords[word].append(place)
        for field, value in point.metadata.items():
            if type(value) is float:
                places, parts = self._numbers[keyword(field)]
                places.extend((place, place))
                parts.extend(halves(value))
        return place

    def end(self, places: Sequence[int], died: int | None) -> None:
        for place in places:
            self._died[place] = _NEVER if died is None else died

    def remove(self, places: Sequence[int]) -> None:
        for place in places:
            self._is_there[place] = False

    def born(self, place: int) -> int:
        return self._born[place]

    # --- masks

    def there(self) -> Mask:
        return np.array(self._is_there, np.bool_)

    def born_after(self, commit: int) -> Mask:
        return self.there() & (np.array(self._born) > commit)

    def died_after(self, commit: int) -> Mask:
        died = np.array(self._died)
        return self.there() & (died > commit) & (died < _NEVER)

    def died_until(self, commit: int) -> Mask:
        return self.there() & (np.array(self._died) <= commit)

    def live(self, places: Sequence[int], born_until: int) -> list[int]:
        """Those of the places whose points have not died and were born at or before that commit."""
        return [p for p in places if self._is_there[p] and self._died[p] == _NEVER and self._born[p] <= born_until]

    def seen(self, view: View) -> Mask:
        alive = (np.array(self._born) <= view.snapshot) & (np.array(self._died) > view.snapshot)
        mask = self.there() & alive
        if view.groups is not None:
            mask &= self._union([self._groups.get(word) for word in readable_keywords(view.groups)])
        if view.filter is not None:
            mask &= compile_filter(view.filter, self)
        return mask

    # --- the keywords.Dialect of masks

    def has_any(self, keywords: Sequence[str]) -> Mask:
        return self._union([self._keywords.get(word) for word in keywords])

    def between(self, field: str, first: int, last: int) -> Mask:
        mask = self.nothing()
        if (word := keyword(field)) in self._numbers:
            places, parts = (np.array(one) for one in self._numbers[word])
            mask[places[(first <= parts) & (parts <= last)]] = True
        return mask

    def every(self, parts: Sequence[Mask]) -> Mask:
        return reduce(np.logical_and, parts)

    def some(self, parts: Sequence[Mask]) -> Mask:
        return reduce(np.logical_or, parts)

    def no(self, part: Mask) -> Mask:
        return ~part

    def nothing(self) -> Mask:
        return np.zeros(len(self), np.bool_)

    def _union(self, lists: "Sequence[array[int] | None]") -> Mask:
        mask = self.nothing()
        for one in lists:
            if one is not None:
                mask[np.array(one)] = True
        return mask
