"""Citation markers in an answer: `[n]`, `[n, m]` or `[n][m]`, 1 ≤ n ≤ 99, outside code.

Text enters as it is generated and leaves as it may be sent: markers of passages that do not exist are dropped before
anyone sees them. Both the stream and the finished text are read by one automaton, so that they never disagree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.sentences import is_ended, sentence_spans

MAX_GROUP_CHARS = 16  # of "[12, 13, 14, 15]": what a stream may hold back
_NUMBER = r"[1-9][0-9]?"
_GROUP = re.compile(rf"\[{_NUMBER}(?: *, *{_NUMBER})*\]")
_GROUP_PREFIX = re.compile(rf"\[(?:{_NUMBER}(?: *, *{_NUMBER})* *(?:, *)?)?")


@dataclass(frozen=True, slots=True)
class Marker:
    """A bracket group of a finished text: code points [start, end) and the numbers it names."""

    start: int
    end: int
    numbers: tuple[int, ...]


def markers(text: str) -> list[Marker]:
    """Every marker of a text, in order."""
    place, outside = _Place(), set()
    for i, char in enumerate(text):
        place = place.after(char)
        if char == "[" and place.mode == "text":
            outside.add(i)
    return [
        Marker(m.start(), m.end(), _numbers(m.group()))
        for m in _GROUP.finditer(text)
        if m.start() in outside and m.end() - m.start() <= MAX_GROUP_CHARS
    ]


def without_markers(text: str) -> str:
    """The text with every marker, and one space before each run of them, taken out."""
    parts, end = [], 0
    for marker in markers(text):
        piece = text[end : marker.start]
        parts.append(piece.removesuffix(" "))
        end = marker.end
    return "".join([*parts, text[end:]])


def answer_spans(answer: str, found: Sequence[Marker]) -> list[tuple[int, int]]:
    """Spans of an answer's sentences, given its markers; models/sentences.py says what a sentence is.

    A marker after a full stop ends one whatever follows, a small letter too, and whatever precedes ("… by Berg Inc. [1]
    …"). In a passage it need not: there the number is the author's own ("Berg et al. [1] show").
    """
    spans: list[tuple[int, int]] = []
    begin = 0
    for end in [*_ends(answer, found), len(answer)]:
        spans += [(begin + first, begin + last) for first, last in sentence_spans(answer[begin:end])]
        begin = end
    return spans


def _ends(answer: str, found: Sequence[Marker]) -> list[int]:
    """Where the runs of markers end that follow a sentence's end."""
    ends: list[int] = []
    stop, follows_end = 0, False
    for marker in found:
        between = answer[stop : marker.start].rstrip(" \t")
        if between or not stop:
            follows_end = is_ended(between)
        elif follows_end:
            ends.pop()  # the run goes on
        if follows_end:
            ends.append(marker.end)
        stop = marker.end
    return ends


class MarkerFilter:
    """Drops markers of unknown passages from a stream. The outputs joined are the same however the input was cut.

    `known` is the number of passages: 1 to `known` may be cited. A group of unknown numbers disappears with one space
    before it (which stays where two words would run together); of a mixed group the known numbers stay.
    """

    def __init__(self, known: int) -> None:
        self._known = known
        self._place = _Place()  # of what was sent so far
        self._space = False  # a space is held back: it goes if the group after it does
        self._dropped = False  # a group was just dropped
        self._group = ""  # an open group, held back
        self._sent_open = ""  # what the sent text ends with, if a group could still come of it
        self._out: list[str] = []

    def feed(self, text: str) -> str:
        """What of the text so far may be sent now and was not sent yet."""
        for char in text:
            self._take(char)
        return self._flush()

    def finish(self) -> str:
        """What was held back, at the end of the stream."""
        if self._group:
            self._release()
        elif self._space and not self._dropped:
            self._send(" ")
        self._space = self._dropped = False
        return self._flush()

    def _take(self, char: str) -> None:
        if self._group:
            group = self._group + char
            if _GROUP.fullmatch(group):
                self._close(group)
                return
            if len(group) < MAX_GROUP_CHARS and _GROUP_PREFIX.fullmatch(group):
                self._group = group
                return
            self._release()
        if char == "[" and self._place.after(char).mode == "text":
            self._group = char
        elif char == " " and self._place.after(char).mode == "text":
            if self._space and not self._dropped:
                self._send(" ")
            self._space, self._dropped = True, False
        else:
            if self._space and (not self._dropped or char.isalnum() or char in "`~"):
                self._send(" ")
            self._space = self._dropped = False
            self._send(char)

    def _close(self, group: str) -> None:
        self._group = ""
        numbers = _numbers(group)
        kept = [n for n in numbers if n <= self._known]
        if not kept:
            self._dropped = True
            return
        if len(kept) < len(numbers):
            group = f"[{', '.join(map(str, kept))}]"
        self._release(group)
        self._sent_open = ""

    def _release(self, group: str | None = None) -> None:
        """Send what was held back: a known group whole, or one that turned out to be none."""
        held, self._group = (" " if self._space else "") + (group or self._group), ""
        self._space = self._dropped = False
        for char in held:
            self._send(char, whole=group is not None)

    def _send(self, char: str, *, whole: bool = False) -> None:
        """Send one character, unless it would make a marker of pieces around a dropped one ("[[7]9]]" → "[9")."""
        opened = self._sent_open + char
        if char == "]" and not whole and len(opened) <= MAX_GROUP_CHARS and _GROUP.fullmatch(opened):
            return
        self._place = self._place.after(char)
        self._out.append(char)
        if char == "[":
            self._sent_open = char if self._place.mode == "text" else ""
        elif self._sent_open:
            # beyond the longest marker it cannot become one, and matching it anew at each character takes the square
            may_close = len(opened) <= MAX_GROUP_CHARS and _GROUP_PREFIX.fullmatch(opened)
            self._sent_open = opened if may_close else ""

    def _flush(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text


def _numbers(group: str) -> tuple[int, ...]:
    return tuple(int(n) for n in group[1:-1].split(","))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in Markdown a character stands: running text, inline code, or a fenced block.

    Decided by what comes before alone, as a stream must: inline code ends at a run of as many backticks as opened it
    or at the end of the line; a fence may be indented (lists). A run of backticks counts once it is over.
    """

    mode: Literal["text", "inline", "info", "fence", "closing"] = "text"
    opener: str = ""  # the run that opened the code
    run: str = ""  # the run of ` or ~ that ends here
    run_leads: bool = False  # that run is the first thing on its line
    line_blank: bool = True

    def after(self, char: str) -> "_Place":
        if not (self.run or self.line_blank or char in "`\n" or self.mode == "closing"):
            return self  # nearly every character
        if self.run and self.run[0] == char:
            return replace(self, run=self.run + char)
        place = self._end_run(char) if self.run else self
        if char == "\n":
            mode: Literal["text", "fence"] = "fence" if place.mode in ("info", "fence") else "text"
            return replace(place, mode=mode, line_blank=True)
        if place._starts_run(char):
            mode_now = "inline" if place.mode == "info" else place.mode
            return replace(place, mode=mode_now, run=char, run_leads=place.line_blank, line_blank=False)
        if char in " \t\r":
            return place
        return replace(place, mode="fence" if place.mode == "closing" else place.mode, line_blank=False)

    def _starts_run(self, char: str) -> bool:
        if self.mode == "fence":
            return self.line_blank and char == self.opener[0]
        if self.mode in ("info", "inline"):
            return char == "`" == self.opener[0]
        return self.mode == "text" and (char == "`" or (char == "~" and self.line_blank))

    def _end_run(self, following: str) -> "_Place":
        """The place once the run is over: it opened code, closed it, or was part of it."""
        run, place = self.run, replace(self, run="")
        if self.mode == "inline":
            return replace(place, mode="text") if run == self.opener else place
        if self.mode == "fence":
            closes = self.run_leads and len(run) >= len(self.opener) and following in " \t\r\n"
            if not closes:
                return place
            return replace(place, mode="text" if following == "\n" else "closing")
        if self.run_leads and len(run) >= 3:
            return replace(place, mode="info", opener=run)
        return replace(place, mode="inline", opener=run) if run[0] == "`" else place
