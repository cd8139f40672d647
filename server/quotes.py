"""The quotes that a passage offers: runs of 1 to 3 adjacent sentences, each a slice of the canonical text.

`shortlist` picks by words alone those worth an embedding; `best` decides once the similarities are known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from models.sentences import sentence_spans
from server.base import ContextPassage, Span
from server.context import slice_of
from server.support import Evidence, Terms, compare, join, support, terms

MAX_RUN = 3  # sentences a quote may have …
MAX_RUN_CHARS = 1000  # … unless they are as long as this
_RUN_COST = 0.15  # support that each further sentence of a quote must add; docs/citations.md


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of a passage that could support something.

    span: in the document. background: all of the passage that was placed, with title and headings.
    """

    passage: ContextPassage
    span: Span
    text: str
    sentences: int
    terms: Terms
    background: Terms


@dataclass(frozen=True, slots=True)
class Match:
    """A quote held against a sentence."""

    quote: Quote
    evidence: Evidence

    @property
    def support(self) -> float:
        return support(self.evidence)

    @property
    def preference(self) -> tuple[float, int, int]:
        """Support less the cost of length, then rank of the passage, then place: what the best match has most of."""
        cost = _RUN_COST * (self.quote.sentences - 1)
        return (self.support - cost, -self.quote.passage.number, -self.quote.span.start)


def candidates(passage: ContextPassage) -> list[Quote]:
    """Every quote of the words that were placed. Runs do not cross from one placed span to another."""
    chunk = passage.hit.chunk
    cuts = [(span, sentence_spans(slice_of(passage.hit, span))) for span in passage.spans]
    said = [[terms(slice_of(passage.hit, span)[start:end]) for start, end in found] for span, found in cuts]
    around = join([terms(chunk.title), *map(terms, chunk.heading_path), *chain.from_iterable(said)])
    quotes = []
    for (span, sentences), each in zip(cuts, said, strict=True):
        text = slice_of(passage.hit, span)
        for first, (start, _) in enumerate(sentences):
            for last in range(first, min(first + MAX_RUN, len(sentences))):
                stop = sentences[last][1]
                if last > first and stop - start > MAX_RUN_CHARS:
                    break
                placed = Span(span.start + start, span.start + stop)
                run = join(each[first : last + 1]) if last > first else each[first]
                quotes.append(Quote(passage, placed, text[start:stop], last - first + 1, run, around))
    return quotes


def shortlist(sentence: Terms, quotes: Iterable[Quote], count: int) -> list[Quote]:
    """The `count` quotes that support a sentence best as far as words tell, best first."""
    matches = [Match(quote, compare(sentence, quote.terms, quote.background)) for quote in quotes]
    matches.sort(key=lambda match: match.preference, reverse=True)
    return [match.quote for match in matches[:count]]


def best(sentence: Terms, quotes: Sequence[Quote], cosine: Callable[[Quote], float | None]) -> Match | None:
    """The quote that supports a sentence best, given the similarity of each (None: unknown); None without quotes."""
    matches = [Match(quote, compare(sentence, quote.terms, quote.background, cosine(quote))) for quote in quotes]
    return max(matches, key=lambda m: m.preference, default=None)
