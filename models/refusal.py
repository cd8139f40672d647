"""What an answer says when the passages hold none, whoever writes it; and how such an answer is recognised."""

import re

REFUSAL = "The documents do not answer this question."

_MARKER = re.compile(r"\[\d{1,2}(?:,\s*\d{1,2})*\]")
# Small models seldom repeat a sentence to the letter; these are the ways in which it comes out.
_REFUSING = re.compile(
    r"(?:(?:i am |i'm )?sorry[,.]?\s*(?:but\s+)?)?(?:the|these|this|none of the|no)?\s*(?:provided |given |numbered )?"
    r"(?:documents?|passages?|context|sources?|texts?)\s*(?:provided\s+)?(?:do|does|did)?\s*(?:not|n't)?\s*"
    r"(?P<verb>answer|contain|hold|mention|provide|include|say|state)s?\b[^.!?]*"
)
_NEGATED = re.compile(r"\bnot\b|n't\b|^(?:none|no)\b")
_TURN = re.compile(r"\b(?:but|however|except|although|though)\b")  # what follows claims something after all


def is_refusal(text: str) -> bool:
    """Whether an answer only says that the documents hold none.

    True for REFUSAL and close variants of it alone; False as soon as another sentence or a citation follows, since then
    something is claimed.
    """
    folded = " ".join(text.split()).strip(" .!").casefold().replace("’", "'")
    if folded == REFUSAL.strip(".").casefold():
        return True
    match = _REFUSING.fullmatch(folded)
    if match is None or _NEGATED.search(folded) is None:
        return False
    return _MARKER.search(folded) is None and _TURN.search(folded, match.start("verb")) is None
