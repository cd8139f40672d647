"""Hits become the numbered passages a generator reads: near duplicates and repeated words dropped, the budget kept.

hits, best first → distinct → untold (no word twice) → fit (whole while they fit, then key sentences) → Context.
What is placed here is exactly what may be cited; `ContextPassage.spans` say which words of the document it is.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.base import Float32
from models.overlap import overlap
from models.sentences import sentence_spans
from server.base import ContextPassage, SearchHit, Span
from server.frame import frame

MAX_HITS = 50  # the fused list's length: the comparison of all with all stays this small
MAX_KEY_SENTENCES = 64  # to choose from, over budget; what ranks further back is seldom worth its tokens
WHOLE = 3  # the best passages that are never cut for the sake of `share`
GAP = "\n\n…\n\n"  # between spans that are not adjacent in the document: a paragraph, so that no sentence crosses it
_GAP_TOKENS = 6  # more than GAP takes in any tokenizer seen; the final count is exact

CountTokens = Callable[[Sequence[str]], Awaitable[list[int]]]


@dataclass(frozen=True, slots=True)
class Context:
    """The passages placed, numbered from 1 in rank order, and what dropping and condensing saved.

    tokens_before: of all hits whole; tokens: of what is placed. By the generator's tokenizer, with number and title.
    """

    passages: tuple[ContextPassage, ...]
    tokens_before: int
    tokens: int
    near_duplicates: int


async def assemble(
    hits: Sequence[SearchHit],
    *,
    vectors: Mapping[str, Float32] | None,
    question: str,
    budget_tokens: int,
    count_tokens: CountTokens,
    share: float = 1.0,
    near_duplicate: float = 0.95,
) -> Context:
    """Choose and number the passages for a prompt, at most `budget_tokens` of them in all, best hits first.

    `vectors`: the stored ones by chunk id; a hit without one repeats another only if its words are the same. A passage
    that does not fit whole is cut to its sentences closest to the question; with nothing that fits there is no passage.
    `share`: of the tokens of all hits, what may be placed; the best WHOLE passages may be more.
    """
    hits = hits[:MAX_HITS]
    count_tokens = _once(count_tokens)
    distinct = drop_near_duplicates(hits, vectors or {}, near_duplicate)
    pieces = untold(distinct)
    framed = [_framed(i, piece) for i, piece in enumerate(pieces, start=1)]
    whole = [frame(i, hit.chunk.title, hit.chunk.text) for i, hit in enumerate(hits, start=1)]
    counts = await count_tokens([*framed, *whole])
    tokens_before = sum(counts[len(framed) :])
    counts = counts[: len(framed)]
    budget_tokens = min(budget_tokens, max(math.floor(share * tokens_before), sum(counts[:WHOLE])))
    if sum(counts) > budget_tokens:
        pieces, counts = await _fit(pieces, counts, budget_tokens, count_tokens, question=question)
    passages = tuple(
        ContextPassage(i, piece.hit, piece.spans, piece.text, count)
        for i, (piece, count) in enumerate(zip(pieces, counts, strict=True), start=1)
    )
    return Context(passages, tokens_before, sum(counts), len(hits) - len(distinct))


def _once(count_tokens: CountTokens) -> CountTokens:
    """The same, each text counted once: most pieces are whole chunks, and most of what is placed was counted before."""
    counted: dict[str, int] = {}

    async def count(texts: Sequence[str]) -> list[int]:
        new = [text for text in dict.fromkeys(texts) if text not in counted]
        if new:
            counted.update(zip(new, await count_tokens(new), strict=True))
        return [counted[text] for text in texts]

    return count


def drop_near_duplicates(
    hits: Sequence[SearchHit], vectors: Mapping[str, Float32], threshold: float
) -> list[SearchHit]:
    """The hits, in order, without those whose cosine to an earlier kept one exceeds `threshold`, or whose words equal
    an earlier one's (case and white space aside)."""
    kept: list[SearchHit] = []
    kept_vectors: list[Float32] = []
    seen: set[str] = set()
    for hit in hits:
        words = " ".join(hit.chunk.text.casefold().split())
        vector = vectors.get(hit.chunk.id)
        norm = float(np.linalg.norm(vector)) if vector is not None else 0.0
        unit = vector / norm if vector is not None and norm > 0 else None
        if words in seen:
            continue
        if unit is not None and kept_vectors and float(np.max(np.stack(kept_vectors) @ unit)) > threshold:
            continue
        kept.append(hit)
        seen.add(words)
        if unit is not None:
            kept_vectors.append(unit.astype(np.float32))
    return kept


@dataclass(frozen=True, slots=True)
class Piece:
    """A hit and the parts of its chunk that are placed."""

    hit: SearchHit
    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        return GAP.join(slice_of(self.hit, span) for span in self.spans)


def slice_of(hit: SearchHit, span: Span) -> str:
    """The words of a span, which is given in the document's offsets and lies within the hit's chunk."""
    return hit.chunk.text[span.start - hit.chunk.start : span.end - hit.chunk.start]


def untold(hits: Sequence[SearchHit]) -> list[Piece]:
    """What each hit adds to the better ones: chunks of one document overlap, and no word is placed twice."""
    told: dict[tuple[str, str], list[Span]] = {}
    pieces = []
    for hit in hits:
        earlier = told.setdefault((hit.chunk.document_id, hit.chunk.version), [])
        left = [Span(hit.chunk.start, hit.chunk.end)]
        for span in earlier:
            left = [part for rest in left for part in _minus(rest, span)]
        spans = tuple(s for s in (_stripped(hit, span) for span in left) if s is not None)
        if spans:
            pieces.append(Piece(hit, spans))
            earlier.extend(spans)
    return pieces


def _minus(span: Span, taken: Span) -> list[Span]:
    if taken.end <= span.start or taken.start >= span.end:
        return [span]
    parts = (Span(span.start, min(span.end, taken.start)), Span(max(span.start, taken.end), span.end))
    return [part for part in parts if part.start < part.end]


def _stripped(hit: SearchHit, span: Span) -> Span | None:
    """The span without white space at its ends; None if no letter or digit is left."""
    text = slice_of(hit, span)
    if not any(char.isalnum() for char in text):
        return None
    return Span(span.start + len(text) - len(text.lstrip()), span.end - len(text) + len(text.rstrip()))


def _framed(number: int, piece: Piece) -> str:
    return frame(number, piece.hit.chunk.title, piece.text)


# --- over budget ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sentence:
    piece: int  # which of the pieces it is of
    span: Span
    text: str


async def _fit(
    pieces: list[Piece],
    counts: list[int],
    budget_tokens: int,
    count_tokens: CountTokens,
    *,
    question: str,
) -> tuple[list[Piece], list[int]]:
    """The longest run of best pieces that fits whole, then of the others the sentences closest to the question."""
    n_whole, room = 0, budget_tokens
    while counts[n_whole] <= room:
        room -= counts[n_whole]
        n_whole += 1
    sentences = _sentences(pieces, first=n_whole)
    scores = overlap(question, [sentence.text for sentence in sentences])
    rates = [tokens / len(_framed(i, piece)) for i, (piece, tokens) in enumerate(zip(pieces, counts, strict=True), 1)]
    costs = [math.ceil(len(sentence.text) * rates[sentence.piece]) for sentence in sentences]
    frames = await count_tokens([frame(i, piece.hit.chunk.title, "") for i, piece in enumerate(pieces, start=1)])
    chosen = _choose(sentences, scores, costs, frames, room=room)
    while True:  # a sentence's tokens are its share of its piece's, by length: count what is placed, drop the weakest
        fitted = [*pieces[:n_whole], *_condensed(pieces, [sentences[i] for i in sorted(chosen)])]
        exact = await count_tokens([_framed(i, piece) for i, piece in enumerate(fitted, start=1)]) if fitted else []
        if sum(exact) <= budget_tokens:
            return fitted, exact
        if chosen:
            chosen.pop()
        else:
            n_whole -= 1


def _choose(
    sentences: Sequence[_Sentence], scores: Sequence[float], costs: Sequence[int], frames: Sequence[int], *, room: int
) -> list[int]:
    """Indices of the sentences closest to the question that fit into `room`, closest first.

    costs: tokens of each sentence; frames: of each piece's empty frame, paid with a piece's first sentence.
    """
    chosen: list[int] = []
    opened: set[int] = set()
    for i in sorted(range(len(sentences)), key=lambda i: (-scores[i], i)):
        piece = sentences[i].piece
        cost = costs[i] + _GAP_TOKENS + (0 if piece in opened else frames[piece])
        if cost <= room:
            room -= cost
            chosen.append(i)
            opened.add(piece)
    return chosen


def _sentences(pieces: Sequence[Piece], first: int) -> list[_Sentence]:
    """Sentences of the pieces from `first` on, best piece first, at most MAX_KEY_SENTENCES."""
    found: list[_Sentence] = []
    for i, piece in enumerate(pieces[first:], start=first):
        for span in piece.spans:
            text = slice_of(piece.hit, span)
            for start, end in sentence_spans(text):
                found.append(_Sentence(i, Span(span.start + start, span.start + end), text[start:end]))
        if len(found) >= MAX_KEY_SENTENCES:
            break
    return found[:MAX_KEY_SENTENCES]


def _condensed(pieces: Sequence[Piece], sentences: Sequence[_Sentence]) -> list[Piece]:
    """Pieces of the sentences given (in order), neighbours joined to one span where only white space parts them."""
    spans: dict[int, list[Span]] = {}
    for sentence in sentences:
        placed = spans.setdefault(sentence.piece, [])
        hit = pieces[sentence.piece].hit
        if placed and not slice_of(hit, Span(placed[-1].end, sentence.span.start)).strip():
            placed[-1] = Span(placed[-1].start, sentence.span.end)
        else:
            placed.append(sentence.span)
    return [Piece(pieces[i].hit, tuple(found)) for i, found in spans.items()]
