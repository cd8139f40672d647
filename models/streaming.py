"""What may be sent of a text that is still growing: whole characters, and nothing that may become a stop string.

Tokens enter, or pieces of text; what leaves is final.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what detokenizers put for the bytes of a character that is not whole yet
_WINDOW_TOKENS = 32  # decoded at each step; older tokens are settled
_OVERLAP_TOKENS = 8  # kept as left context, since a detokenizer treats the first token of a text differently


class IncrementalDecoder:
    """Turns tokens into text as they come; a character split over tokens comes out once, when it is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._sent = 0  # characters of the window's text that have left already

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        self._window.extend(tokens)
        text = self._decode(self._window)
        whole = text.rstrip(REPLACEMENT)
        piece = whole[self._sent :]
        self._sent = max(self._sent, len(whole))
        if len(self._window) > _WINDOW_TOKENS and whole == text:
            self._settle(text)
        return piece

    def _settle(self, text: str) -> None:
        """Forget all but the last tokens, if their text alone is how the whole text ends."""
        tail = self._window[-_OVERLAP_TOKENS:]
        tail_text = self._decode(tail)
        if tail_text and text.endswith(tail_text):
            self._window, self._sent = tail, len(tail_text)


class StopScanner:
    """Ends a text before the first stop string, holding back only what could be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: str) -> str:
        """What of the text so far may be sent now. After a stop string nothing more is."""
        if self.stopped:
            return ""
        text = self._held + piece
        # the stop string that is whole first, however the text was cut into pieces
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, now that the text has ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that `text` ends with."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
