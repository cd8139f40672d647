"""Sentences with the paragraphs they are held against, made from SQuAD: what is supported, and what only looks it.

Everything is drawn by one seed. Restated and plausible sentences have one form, a question with an answer in the place
of its question word, so that they differ in the truth alone.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.sentences import sentence_spans
from server.support import Terms, coverage, terms

POSITIVES = ("verbatim", "restated")
NEGATIVES = ("other paragraph", "swapped number", "swapped name", "plausible")
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")
_NAME = re.compile(r"\b[A-Z][\w'’-]+(?: (?:(?:of|the|de|von) )?[A-Z][\w'’-]+)*")
_AUXILIARY = r"is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|might|must"
_ASKS_NUMBER = re.compile(
    r"\b(?:when|how (?:many|much|long|old|far|large|tall|often)"
    r"|(?:what|which) (?:year|date|day|century|percent\w*|number))\b",
    re.IGNORECASE,
)
_QUESTION_WORD = re.compile(
    rf"\b(?:who|whom|whose|when|where|why|how (?:many|much|long|old|far|large|tall|often)|how"
    rf"|(?:what|which)(?: (?!(?:{_AUXILIARY}|of|the|a)\b)\w+)?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Paragraph:
    id: str
    article: str
    text: str
    terms: Terms

    def sentences(self) -> list[str]:
        return [self.text[start:end] for start, end in sentence_spans(self.text)]


@dataclass(frozen=True, slots=True)
class Article:
    """Its paragraphs, and the numbers and names in them by length (in digits and in words)."""

    paragraphs: tuple[Paragraph, ...]
    numbers: Mapping[int, tuple[str, ...]]
    names: Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    paragraph: Paragraph
    answer: str  # "" if the paragraph has none
    answer_start: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence of an answer, the paragraph it is held against, and how the pair came about."""

    kind: str
    sentence: str
    paragraph: Paragraph


def read_squad(folder: Path) -> tuple[list[Paragraph], list[Question]]:
    """Paragraphs and questions, the unanswerable ones too, in the files' order."""
    paragraphs = {}
    for row in _rows(folder / "corpus.jsonl"):
        text = str(row["text"])
        paragraphs[str(row["_id"])] = Paragraph(str(row["_id"]), str(row["title"]), text, terms(text))
    questions = [
        Question(str(row["text"]), paragraphs[str(row["paragraph"])], *_answer(row))
        for name in ("queries.jsonl", "unanswerable.jsonl")
        for row in _rows(folder / name)
    ]
    return list(paragraphs.values()), questions


def make_pairs(folder: Path, per_kind: int, seed: int = 0) -> list[Pair]:
    """Up to `per_kind` pairs of each positive kind and of each third of the negatives; swaps halve theirs."""
    paragraphs, questions = read_squad(folder)
    rng = random.Random(seed)
    rng.shuffle(questions)
    by_article: dict[str, list[Paragraph]] = {}
    for paragraph in paragraphs:
        by_article.setdefault(paragraph.article, []).append(paragraph)
    articles = {title: _article(found) for title, found in by_article.items()}
    limits = dict.fromkeys((*POSITIVES, *NEGATIVES), per_kind)
    limits |= {"swapped number": per_kind // 2, "swapped name": per_kind // 2}
    counts = dict.fromkeys(limits, 0)
    pairs: dict[tuple[str, str], Pair] = {}
    for question in questions:
        for pair in _pairs_of(question, articles[question.paragraph.article], rng):
            if counts[pair.kind] < limits[pair.kind] and (pair.kind, pair.sentence) not in pairs:
                pairs[pair.kind, pair.sentence] = pair
                counts[pair.kind] += 1
    return list(pairs.values())


def _pairs_of(question: Question, article: Article, rng: random.Random) -> Iterator[Pair]:
    paragraph = question.paragraph
    if not question.answer:
        wrong = _plausible(question)
        if wrong:
            yield Pair("plausible", statement(question.text, wrong), paragraph)
        return
    sentence = _sentence_at(paragraph.text, question.answer_start)
    yield Pair("verbatim", sentence, paragraph)
    yield Pair("restated", statement(question.text, question.answer), paragraph)
    others = [p for p in article.paragraphs if sentence not in p.text]
    if others:
        said = terms(sentence)
        yield Pair("other paragraph", sentence, max(others, key=lambda p: coverage(said, p.terms)))
    for kind, pattern, pool in (
        ("swapped number", _NUMBER, article.numbers),
        ("swapped name", _NAME, article.names),
    ):
        swapped = _swap(sentence, pattern, pool, rng)
        if swapped:
            yield Pair(kind, swapped, paragraph)


def statement(question: str, answer: str) -> str:
    """The question with the answer in place of its question word: crude English, but one sentence that claims it."""
    text = question.rstrip(" ?.").lstrip()
    match = _QUESTION_WORD.search(text)
    if match is None:
        return f"{text}: {answer}."
    made = f"{text[: match.start()]}{answer}{text[match.end() :]}."
    return made[0].upper() + made[1:]


def _plausible(question: Question) -> str | None:
    """A number or name of the paragraph, as the question asks for, from the sentence closest to it."""
    pattern = _NUMBER if _ASKS_NUMBER.search(question.text) else _NAME
    asked = terms(question.text)
    for sentence in sorted(question.paragraph.sentences(), key=lambda s: -coverage(asked, terms(s))):
        for match in _inner(pattern, sentence):
            if match.group().lower() not in question.text.lower():
                return match.group()
    return None


def _swap(sentence: str, pattern: re.Pattern[str], pool: Mapping[int, Sequence[str]], rng: random.Random) -> str | None:
    """The sentence with one number or name replaced by another of the article, of the same length."""
    targets = _inner(pattern, sentence)
    if not targets:
        return None
    target = rng.choice(targets)
    others = [other for other in pool.get(_size(target.group()), ()) if other.lower() not in sentence.lower()]
    if not others:
        return None
    return sentence[: target.start()] + rng.choice(others) + sentence[target.end() :]


def _article(paragraphs: Sequence[Paragraph]) -> Article:
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph.sentences()]

    def pool(pattern: re.Pattern[str]) -> dict[int, tuple[str, ...]]:
        found = sorted({match.group() for sentence in sentences for match in _inner(pattern, sentence)})
        return {size: tuple(f for f in found if _size(f) == size) for size in {_size(f) for f in found}}

    return Article(tuple(paragraphs), pool(_NUMBER), pool(_NAME))


def _inner(pattern: re.Pattern[str], sentence: str) -> list[re.Match[str]]:
    """Matches that do not begin the sentence, whose first word's capital says nothing."""
    return [match for match in pattern.finditer(sentence) if match.start() > 0]


def _size(found: str) -> int:
    return len(found) if found[0].isdigit() else len(found.split())


def _sentence_at(text: str, offset: int) -> str:
    """The sentence that holds a code point."""
    return next(text[start:end] for start, end in sentence_spans(text) if start <= offset < end)


def _answer(row: dict[str, object]) -> tuple[str, int]:
    answers, starts = row["answers"], row["answer_starts"]
    assert isinstance(answers, list)
    assert isinstance(starts, list)
    return (str(answers[0]), int(starts[0])) if answers else ("", -1)


def _rows(path: Path) -> Iterator[dict[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
