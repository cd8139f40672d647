"""A passage's sentence as an answer gives it: on one line, in the document's words, ready for the marker after it.

Markup that means nothing on one line goes: bullets, heading marks, fences. What would be read as a marker of this
answer, or would swallow the one after it, is written so that it is not.
"""

import re

from models.markers import markers
from models.sentences import is_ended

_FENCE = re.compile(r"^[ \t]*(?:`{3,}[^`\n]*|~{3,}[^\n]*)$", re.MULTILINE)
# A minus, plus or "greater than" before a number is the number's.
_MARK = re.compile(r"^(?:(?:[*•‣◦]|#{1,6}|[-+–—>](?!\s*\d))\s+)?(?:~{3,}\s*)*")
_BACKTICKS = re.compile(r"`+")


def shown(text: str, *, end_stop: bool = True) -> str:
    """One line with a full stop. No marker is found in it, and code that it opens it closes."""
    line = _MARK.sub("", " ".join(without_fences(text).split()), count=1)
    line = _without_markers(_closed(line))
    return line if not end_stop or is_ended(line) else f"{line}."


def without_fences(text: str) -> str:
    """The text without the lines that begin and end blocks of code."""
    return _FENCE.sub("", text)


def _closed(line: str) -> str:
    """The line with backticks that nothing closes as code of their own: "the ` key" → "the `` ` `` key"."""
    runs = list(_BACKTICKS.finditer(line))
    parts: list[str] = []
    stop = i = 0
    while i < len(runs):
        run = runs[i].group()
        closing = next((j for j in range(i + 1, len(runs)) if runs[j].group() == run), None)
        if closing is None:
            parts += [line[stop : runs[i].start()], f"{run}` {run} {run}`"]
            stop = runs[i].end()
        i = (i if closing is None else closing) + 1
    return "".join([*parts, line[stop:]])


def _without_markers(line: str) -> str:
    """The line with "[n]" as "(n)", as in a prompt; after a full stop it is a reference of the document, and goes."""
    parts: list[str] = []
    stop, goes = 0, False
    for marker in markers(line):
        before = line[stop : marker.start]
        goes = is_ended(before.rstrip()) or (goes and not before.strip())
        goes = goes and line[marker.end : marker.end + 1] in ("", " ", "[")
        parts += [before.rstrip()] if goes else [before, "(", line[marker.start + 1 : marker.end - 1], ")"]
        stop = marker.end
    return "".join([*parts, line[stop:]])
