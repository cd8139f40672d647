"""Does a quote support a sentence of an answer? Word overlap and embedding similarity, with numbers and names weighed.

Paraphrase keeps numbers and names and changes other words; invention does the reverse. So words that are missing from
the quote cost their share, a missing number or name cuts the score. docs/citations.md has the measured error rates.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.overlap import UNSPACED

DEFAULT_THRESHOLD = 0.66  # where false accepts and false rejects are fewest together; docs/citations.md
_COSINE_SHARE = 0.7
_NUMBER_ABSENT, _NUMBER_NEAR = 0.3, 0.6
_NAME_ABSENT, _NAME_NEAR = 0.5, 0.85
_NEGATION = 0.8

_SHORT_WORD_WEIGHT = 0.2  # of words to 3 letters: mostly function words, in most languages with an alphabet
_STEM_CHARS = 5  # truncation as stemming, whatever the language (McNamee & Mayfield 2004: n-grams of 4 to 5)
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_ORDINALS = frozenset({"st", "nd", "rd", "th", "s"})  # of "10th" and "1990s"
_NEGATIONS = frozenset({"not", "no", "never", "none", "nor", "neither", "without", "cannot"})
_TWO_TO_TWELVE = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TWENTY_TO_NINETY = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {
    **{word: str(n) for n, word in enumerate(_TWO_TO_TWELVE, start=2)},
    **{word: str(10 * n) for n, word in enumerate(_TWENTY_TO_NINETY, start=2)},
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a text says, as far as words tell. `words` holds every term's stem; names and numbers are kept whole too."""

    words: frozenset[str]
    names: frozenset[str]  # capitalised, and not only because a sentence begins
    numbers: frozenset[str]
    forms: frozenset[str]  # every word, lower case: where a name is looked for
    is_negated: bool


def terms(text: str) -> Terms:
    """The terms of a text, read as one sentence."""
    words, names, numbers, forms = set(), set(), set(), set()
    tokens = list(_TOKEN.finditer(text))
    negated = False
    for i, match in enumerate(tokens):
        token = match.group()
        if token[0].isdigit():
            numbers.add(_number(token))
            continue
        if token in _ORDINALS and i and tokens[i - 1].end() == match.start() and tokens[i - 1].group()[0].isdigit():
            continue
        form = _form(token)
        if form in _NUMBER_WORDS:
            numbers.add(_NUMBER_WORDS[form])
            continue
        negated = negated or form in _NEGATIONS or form.endswith(("n't", "n’t"))
        forms.add(form)
        words.update(_stems(form))
        if token[0].isupper() and len(token) > 1 and (i > 0 or _is_name_first(token, tokens, text)):
            names.add(form)
    return Terms(frozenset(words), frozenset(names), frozenset(numbers), frozenset(forms), negated)


def join(parts: Iterable[Terms]) -> Terms:
    """The terms of several texts together."""
    all_ = list(parts)
    return Terms(
        frozenset().union(*(part.words for part in all_)),
        frozenset().union(*(part.names for part in all_)),
        frozenset().union(*(part.numbers for part in all_)),
        frozenset().union(*(part.forms for part in all_)),
        any(part.is_negated for part in all_),
    )


def _is_name_first(token: str, tokens: list[re.Match[str]], text: str) -> bool:
    """Whether a sentence's first word is a name: an acronym, or followed by another capital ("Kestrel Pumps sell")."""
    if token.isupper():
        return True
    return len(tokens) > 1 and tokens[1].group()[0].isupper() and text[tokens[0].end() : tokens[1].start()] == " "


def _number(token: str) -> str:
    return token.replace(",", "") if _THOUSANDS.fullmatch(token) else token


def _form(token: str) -> str:
    form = token.casefold().replace("’", "'")
    return form.removesuffix("'s").removesuffix("'")


def _stems(form: str) -> list[str]:
    """What a word is compared by: its beginning; its pairs of characters where words have no space between them."""
    if UNSPACED.search(form):
        return [form[i : i + 2] for i in range(max(1, len(form) - 1))]
    return [form[:_STEM_CHARS]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a sentence of an answer and a quote compare. near: not in the quote, but in the passage around it."""

    cosine: float  # of their embeddings
    coverage: float  # share of the sentence's terms that the quote has, 0 to 1
    numbers_absent: int
    numbers_near: int
    names_absent: int
    names_near: int
    negation_differs: bool


def compare(answer: Terms, quote: Terms, background: Terms, cosine: float | None = None) -> Evidence:
    """The evidence for `answer` in `quote`; `background` are the terms of the passage, its title and headings.

    Without a cosine, the coverage stands in for it: good enough to choose which quotes are worth embedding.
    """
    numbers = answer.numbers - quote.numbers
    names = {name for name in answer.names if not _has_name(quote, name)}
    numbers_near = len(numbers & background.numbers)
    names_near = sum(_has_name(background, name) for name in names)
    share = coverage(answer, quote)
    return Evidence(
        cosine=share if cosine is None else cosine,
        coverage=share,
        numbers_absent=len(numbers) - numbers_near,
        numbers_near=numbers_near,
        names_absent=len(names) - names_near,
        names_near=names_near,
        negation_differs=answer.is_negated != quote.is_negated,
    )


def _has_name(text: Terms, name: str) -> bool:
    """Whether a text has the name, in the singular or plural."""
    return name in text.forms or name + "s" in text.forms or name.removesuffix("s") in text.forms


def coverage(answer: Terms, quote: Terms) -> float:
    """Weighted share of the answer's words and numbers that the quote has; 0 if the answer has none."""
    total = found = 0.0
    for word in answer.words:
        weight = _SHORT_WORD_WEIGHT if len(word) <= 3 and not UNSPACED.match(word) else 1.0
        total += weight
        found += weight if word in quote.words else 0.0
    total += len(answer.numbers)
    found += len(answer.numbers & quote.numbers)
    return found / total if total else 0.0


def support(evidence: Evidence) -> float:
    """How well a quote supports a sentence, 0 to 1; 1 for the sentence's own words.

    (c · cosine + (1 − c) · coverage) · Π factor^count over missing numbers and names and a differing negation.
    """
    base = _COSINE_SHARE * max(0.0, evidence.cosine) + (1 - _COSINE_SHARE) * evidence.coverage
    factor = (
        _NUMBER_ABSENT**evidence.numbers_absent
        * _NUMBER_NEAR**evidence.numbers_near
        * _NAME_ABSENT**evidence.names_absent
        * _NAME_NEAR**evidence.names_near
        * (_NEGATION if evidence.negation_differs else 1.0)
    )
    return min(1.0, base * factor)
