"""How many of a question's terms stand in a text, rare ones weighing more: lexical relevance without a model."""

import math
import re
from collections import Counter
from collections.abc import Sequence

# Scripts in which words have no space between them.
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f\U00020000-\U0003ffff]")

_WORD = re.compile(r"[^\W_]+")
_DIGIT = re.compile(r"\d")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_STEM = 5  # letters: truncation stems any suffixing language (McNamee & Mayfield 2004, "trunc5")


def overlap(question: str, texts: Sequence[str]) -> list[float]:
    """Σ idf of the question's terms that stand in a text / Σ idf of all of them, for each text; 0 to 1.

    idf(t) = ln(1 + (n - df + 0.5) / (df + 0.5)) over the n texts: a term that all of them have weighs little. A
    question without terms overlaps with nothing.
    """
    documents = [terms(text) for text in texts]
    frequency = Counter(term for document in documents for term in document)
    idf = {t: math.log1p((len(documents) - frequency[t] + 0.5) / (frequency[t] + 0.5)) for t in terms(question)}
    total = sum(idf.values())
    return [sum(idf[t] for t in document & idf.keys()) / total if total else 0.0 for document in documents]


def terms(text: str) -> set[str]:
    """Case-folded words cut to their first letters, but for those with a digit ("4711009", "b2"), which name something;
    of words in Chinese, Japanese or Korean, every character."""
    words = set(_WORD.findall(text.casefold()))
    cjk = {word for word in words if _CJK.search(word)}
    stems = {word if _DIGIT.search(word) else word[:_STEM] for word in words - cjk}
    return stems | {char for word in cjk for char in word}
