"""An answer's sentences, each with the exact words of the passages it rests on, and how well those support it.

A quote is a slice of a placed passage, so of the canonical text: verbatim by construction. Candidates are chosen by
words, and only the few best are embedded, all in one call: citing must take < 100 ms after the last token.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

from models.base import Embedder, Float32, ModelError
from models.markers import Marker, answer_spans, markers
from models.refusal import is_refusal
from server.base import AnswerSentence, Citation, ContextPassage, Span
from server.quotes import Match, Quote, best, candidates, shortlist
from server.support import DEFAULT_THRESHOLD, Terms, terms

_EMBEDDED_QUOTES = 5  # of a whole answer, shared by its sentences; each sentence and passage cited has at least one


@dataclass(frozen=True, slots=True)
class _Claim:
    """A sentence of the answer: where it stands, its words without markers, and the passages that it cites."""

    span: Span
    text: str
    terms: Terms
    cited: tuple[int, ...]


async def cite(
    answer: str, passages: Sequence[ContextPassage], embedder: Embedder, *, threshold: float = DEFAULT_THRESHOLD
) -> tuple[tuple[Citation, ...], tuple[AnswerSentence, ...]]:
    """Match each sentence of an answer to the passages it cites, or to the one that supports it best if it cites none.

    A cited passage gets a citation whatever its support, an uncited one from `threshold` on. A sentence is supported if
    one of its matches reaches the threshold; a refusal claims nothing and counts as supported. Offsets are code points
    of `answer`. If the embedder fails, word overlap stands in for similarity.
    """
    claims, shortlists = await asyncio.to_thread(_read, answer, passages)
    vectors = await _embed(claims, shortlists, embedder)
    return await asyncio.to_thread(_judged, claims, shortlists, vectors, threshold)


def quote_sha256(quote: str) -> str:
    """Hex digest of the quote in UTF-8."""
    return hashlib.sha256(quote.encode()).hexdigest()


def _read(answer: str, passages: Sequence[ContextPassage]) -> tuple[list[_Claim], list[list[list[Quote]]]]:
    """The answer's sentences, and the quotes worth a closer look for each; 0.5 s for a long answer."""
    quotes = {passage.number: candidates(passage) for passage in passages}
    claims = _claims(answer, quotes.keys())
    each = max(1, _EMBEDDED_QUOTES // max(1, len(claims)))
    return claims, [_shortlists(claim, quotes, each) for claim in claims]


def _judged(
    claims: Sequence[_Claim],
    shortlists: Sequence[Sequence[Sequence[Quote]]],
    vectors: Mapping[str, Float32],
    threshold: float,
) -> tuple[tuple[Citation, ...], tuple[AnswerSentence, ...]]:
    """What `cite` gives, once the similarities are known."""
    citations: list[Citation] = []
    sentences: list[AnswerSentence] = []
    for claim, lists in zip(claims, shortlists, strict=True):
        matches = _matches(claim, lists, vectors)
        score = max((match.support for match in matches), default=0.0)
        first = len(citations)
        citations.extend(_citation(m, claim.span) for m in matches if claim.cited or m.support >= threshold)
        supported = score >= threshold or (not claim.cited and is_refusal(claim.text))
        mine = tuple(range(first, len(citations)))
        sentences.append(AnswerSentence(claim.span.start, claim.span.end, supported, score, mine))
    return tuple(citations), tuple(sentences)


def _claims(answer: str, known: AbstractSet[int]) -> list[_Claim]:
    """The answer's sentences. One without a word (a line of markers) belongs to the sentence before it."""
    found = markers(answer)
    spans: list[Span] = []
    for start, end in answer_spans(answer, found):
        if spans and not any(char.isalnum() for char in _bare(answer, start, end, found)):
            spans[-1] = Span(spans[-1].start, end)
        else:
            spans.append(Span(start, end))
    claims = []
    for span in spans:
        text = _bare(answer, span.start, span.end, found)
        numbers = chain.from_iterable(m.numbers for m in found if span.start <= m.start < span.end)
        cited = tuple(n for n in dict.fromkeys(numbers) if n in known)
        claims.append(_Claim(span, text, terms(text), cited))
    return claims


def _bare(answer: str, start: int, end: int, found: Sequence[Marker]) -> str:
    """The words from `start` to `end` without the markers found there."""
    parts = []
    for marker in found:
        if start <= marker.start < end:
            parts.append(answer[start : marker.start].rstrip(" "))
            start = marker.end
    return "".join([*parts, answer[start:end]])


def _shortlists(claim: _Claim, quotes: Mapping[int, Sequence[Quote]], count: int) -> list[list[Quote]]:
    """Quotes worth a closer look: a list for each passage cited, or one from all of them if none is cited."""
    if not claim.cited:
        return [_closest(claim, chain.from_iterable(quotes.values()), count)]
    share = max(1, count // len(claim.cited))
    return [_closest(claim, quotes[number], share) for number in claim.cited]


def _closest(claim: _Claim, quotes: Iterable[Quote], count: int) -> list[Quote]:
    """The shortlist; of the sentence's own words, if they are there, nothing but those: no support can be higher."""
    found = shortlist(claim.terms, quotes, count)
    return [quote for quote in found if quote.text == claim.text][:1] or found


async def _embed(
    claims: Sequence[_Claim], shortlists: Sequence[Sequence[Sequence[Quote]]], embedder: Embedder
) -> Mapping[str, Float32]:
    """Vectors of all sentences and quotes that are to be compared, in one call; none if the embedder fails.

    Both sides are embedded as questions: that is the symmetric use of a model with prefixes, and it cuts what is too
    long. A sentence whose own words are quoted needs no vector.
    """
    texts: dict[str, None] = {}
    for claim, lists in zip(claims, shortlists, strict=True):
        for quote in chain.from_iterable(lists):
            if quote.text != claim.text:
                texts |= {claim.text: None, quote.text: None}
    try:
        embeddings = await embedder.embed_queries(list(texts)) if texts else []
    except ModelError:
        return {}
    return {text: embedding.vector for text, embedding in zip(texts, embeddings, strict=True)}


def _matches(claim: _Claim, lists: Sequence[Sequence[Quote]], vectors: Mapping[str, Float32]) -> list[Match]:
    """The best match of each list."""

    def cosine(quote: Quote) -> float | None:
        if quote.text == claim.text:
            return 1.0
        if claim.text not in vectors:
            return None
        return float(vectors[claim.text] @ vectors[quote.text])

    found = (best(claim.terms, quotes, cosine) for quotes in lists)
    return [match for match in found if match is not None]


def _citation(match: Match, sentence: Span) -> Citation:
    passage, span = match.quote.passage, match.quote.span
    chunk = passage.hit.chunk
    return Citation(
        number=passage.number,
        document_id=chunk.document_id,
        version=chunk.version,
        chunk_id=chunk.id,
        uri=chunk.uri,
        title=chunk.title,
        page=chunk.page,
        heading_path=chunk.heading_path,
        start=span.start,
        end=span.end,
        quote=match.quote.text,
        quote_sha256=quote_sha256(match.quote.text),
        support=match.support,
        answer_start=sentence.start,
        answer_end=sentence.end,
    )
