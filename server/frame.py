"""A passage as it stands in a prompt: between tags that it cannot close or forge, under a number it cannot imitate."""

import re

MARKER = re.compile(r"\[(\s*\d{1,2}(?:\s*,\s*\d{1,2})*\s*)\]")
_TAG = re.compile(r"<(?=\s*/?\s*passage\b)", re.IGNORECASE)


def frame(number: int, title: str, text: str) -> str:
    """Number, title, text and delimiters, to the letter as they are sent: what a passage's tokens are counted on."""
    shown = _as_data(" ".join(title.split())).replace('"', "'").replace(">", "›")
    return f'<passage number="{number}" title="{shown}">\n{_as_data(text)}\n</passage>\n'


def _as_data(text: str) -> str:
    """Text that cannot pass for a passage's beginning or end, nor for a citation of one."""
    return MARKER.sub(r"(\1)", _TAG.sub("‹", text))
