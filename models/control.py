"""Control tokens inside a text: a document could forge a turn of the conversation with one, so they become words."""

import re
from collections.abc import Iterable

# What a tokenizer may read as a control token: <|im_start|>, </s>, <start_of_turn>, <<SYS>>, [INST].
LOOKS_LIKE_CONTROL = re.compile(r"<\|[^|<>\s]{1,60}\|>|</?[a-z_]{1,40}>|<<?/?[A-Z_]{2,20}>?>|\[/?[A-Z_]{2,20}\]")


def control_tokens(vocabulary: Iterable[str]) -> re.Pattern[str]:
    """What finds the control tokens of a vocabulary in a text."""
    found = sorted((word for word in vocabulary if LOOKS_LIKE_CONTROL.fullmatch(word)), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found)) or r"(?!)")


def defuse(text: str, control: re.Pattern[str]) -> str:
    """The text with its control tokens broken by a space, so that they are words like any others."""
    return control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
