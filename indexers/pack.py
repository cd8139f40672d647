"""Packs a tokenised text into chunks: which runs of items, by integer arithmetic alone.

An item is the least that can be cut off: the tokens that begin at one character, and the characters up to the next
item. Items, section starts and a budget a section enter; spans of items leave.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from indexers.structure import LINE, PARAGRAPH, SENTENCE, TOKEN, WORD, Bool, Int8, Int64

# A token may stand for any number of characters (BERT reads a word of more than 100 as one [UNK]); a chunk holds at
# most this many a token of its budget, so that a line of base64 does not become a chunk of a megabyte.
CHARS_PER_TOKEN = 64
_SMALL = 4  # a section below 1/4 of the budget takes the next one along
_FILLED = 2  # a chunk ends at the last good boundary past 1/2 of its budget


@dataclass(frozen=True, slots=True)
class Items:
    """m items. `starts`, `tokens` and `costs` have m + 1 entries: first character, first token and cost before each.

    `boundaries` holds, by strength, the items that begin something so strong or stronger; `blank` those that are white
    space alone. A cost is in 1/64 tokens. Lists where the packer bisects, which is faster than in arrays.
    """

    starts: Int64
    tokens: Int64
    costs: list[int]
    boundaries: Mapping[int, list[int]]
    blank: frozenset[int]

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True)
class Span:
    """Items [first, last) of one chunk; `section` is where it begins, at its heading if `at_heading`."""

    first: int
    last: int
    section: int
    at_heading: bool


def make_items(strengths: Int8, visible: Bool, offsets: Int64, max_cost_tokens: int) -> Items:
    """Items of a text by what its characters (n,) and its tokens (t, 2) are; none costs more than `max_cost_tokens`.

    A boundary inside a token moves to where the token begins.
    """
    begins = np.minimum(np.maximum.accumulate(offsets[:, 0]), len(strengths) - 1) if len(offsets) else offsets[:, 0]
    first = np.flatnonzero(np.diff(begins, prepend=-1))  # the first token of each group that begins at one character
    levels = strengths.copy()
    if len(first):
        groups, ends = begins[first], np.maximum.reduceat(offsets[:, 1], first)
        cuts = np.flatnonzero(levels)
        group = np.maximum(np.searchsorted(groups, cuts, side="right") - 1, 0)
        inside = (groups[group] < cuts) & (cuts < ends[group])
        np.maximum.at(levels, groups[group[inside]], levels[cuts[inside]])
        levels[cuts[inside]] = 0
        levels[groups] = np.maximum(levels[groups], TOKEN)
    starts = np.flatnonzero(levels)
    tokens = np.searchsorted(begins, starts)
    bounds, counts = np.append(starts, len(strengths)), np.append(tokens, len(begins))
    cost = np.maximum(np.diff(counts) * CHARS_PER_TOKEN, np.diff(bounds))
    costs = np.cumsum(np.minimum(cost, max_cost_tokens * CHARS_PER_TOKEN))
    kinds = levels[starts]
    return Items(
        starts=bounds,
        tokens=counts,
        costs=[0, *costs.tolist()],
        boundaries={s: np.flatnonzero(kinds >= s).tolist() for s in (WORD, SENTENCE, LINE, PARAGRAPH)},
        blank=frozenset(np.flatnonzero(~np.logical_or.reduceat(visible, starts)).tolist()),
    )


class Packer:
    """Greedy: a chunk takes what its budget holds, then gives back what follows the strongest boundary past its half.

    `heads[i]` and `levels[i]` are section i's first item and heading level (0: before any heading), ascending;
    `budget(section, at_heading)` the tokens a chunk that begins there may have; `overlap` the share repeated.
    """

    def __init__(
        self, items: Items, sections: Sequence[tuple[int, int]], budget: Callable[[int, bool], int], overlap: float
    ) -> None:
        self._items = items
        self._heads = [head for head, _ in sections]
        self._levels = [level for _, level in sections]
        self._budget = budget
        self._overlap = overlap

    def spans(self) -> Iterator[Span]:
        """Spans in order; every visible item is in one, and each begins and ends further on than the one before."""
        begin = done = 0
        while (begin := self._visible_from(begin)) < len(self._items):
            section = self.section_of(begin)
            at_heading = self._heads[section] == begin
            budget = self._budget(section, at_heading) * CHARS_PER_TOKEN
            reach = bisect_right(self._items.costs, self._items.costs[begin] + budget) - 1
            if reach <= done and begin < done:  # what is repeated leaves no room for the next item
                begin = done
                continue
            span = Span(begin, self._end(begin, max(begin, done), reach, budget), section, at_heading)
            yield span
            done = span.last
            begin = self._next_begin(span, budget)

    def _visible_from(self, item: int) -> int:
        while item in self._items.blank:
            item += 1
        return item

    def section_of(self, item: int) -> int:
        return bisect_right(self._heads, item) - 1

    def _end(self, begin: int, done: int, reach: int, budget: int) -> int:
        heading = self._heading(begin, reach, budget)
        if heading is not None:
            return heading
        if reach == len(self._items):
            return reach
        costs, boundaries = self._items.costs, self._items.boundaries
        half = bisect_left(costs, costs[begin] + budget // _FILLED)
        for strength in (PARAGRAPH, LINE, SENTENCE, WORD):
            last = _last(boundaries[strength], max(done, half - 1), reach)
            if last is not None:
                return last
        word = _last(boundaries[WORD], done, reach)
        return reach if word is None else word

    def _heading(self, begin: int, reach: int, budget: int) -> int | None:
        """The heading to end at: the first above the chunk's own section, or once there is enough before it.

        In the second case a higher one passed on the way is better, if not too close: it belongs to what follows.
        """
        section, costs = self.section_of(begin), self._items.costs
        own, at_heading = self._levels[section], self._heads[section] == begin
        passed: list[tuple[int, int]] = []
        for following in range(section + 1, len(self._heads)):
            head, level = self._heads[following], self._levels[following]
            if head > reach or head == len(self._items):
                return None
            if level < own or (level == own and not at_heading):
                return head
            filled = costs[head] - costs[begin]
            if filled >= budget // (2 * _SMALL):
                passed.append((level, -head))
            if filled >= budget // _SMALL:
                return -min(passed)[1]
        return None

    def _next_begin(self, span: Span, budget: int) -> int:
        """Where the next chunk begins: at a sentence or a word, about `overlap` before this one's end.

        After a whole line or paragraph only whole sentences are repeated, or nothing; never across a heading.
        """
        end, costs, boundaries = span.last, self._items.costs, self._items.boundaries
        target = costs[end] - int(self._overlap * budget)
        low = max(bisect_left(costs, target), span.first + 1, self._heads[self.section_of(end)])
        sentence, word = (_first(boundaries[strength], low, end) for strength in (SENTENCE, WORD))
        if _last(boundaries[LINE], end - 1, end) is not None:
            return sentence
        if costs[end] - costs[sentence] >= (costs[end] - target) // 2:
            return sentence
        return word if word < end else min(low, end)


def _last(boundaries: list[int], after: int, until: int) -> int | None:
    """The last boundary in (after, until]."""
    i = bisect_right(boundaries, until) - 1
    return boundaries[i] if i >= 0 and boundaries[i] > after else None


def _first(boundaries: list[int], low: int, end: int) -> int:
    """The first boundary in [low, end), or `end` if there is none."""
    i = bisect_left(boundaries, low)
    return min(boundaries[i], end) if i < len(boundaries) else end
