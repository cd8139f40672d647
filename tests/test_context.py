"""Context: nothing twice, never over budget, numbered in rank order, and every placed word known by its span."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import Float32
from models.extractive import split
from server.base import ContextPassage, SearchHit, Span, StoredChunk
from server.context import GAP, Context, assemble, drop_near_duplicates, untold
from server.frame import frame
from server.prompt import build_prompt


def hit(text: str, *, id_: str = "", document: str = "", start: int = 0, title: str = "Manual") -> SearchHit:
    chunk = StoredChunk(
        id=id_ or text,
        document_id=document or text,
        version="v1",
        uri="manual.md",
        title=title,
        index=0,
        total_chunks=1,
        start=start,
        end=start + len(text),
        page=None,
        heading_path=(),
        token_count=0,
        text=text,
        metadata={},
        groups=(),
    )
    return SearchHit(chunk, "default", 1.0, {})


async def count_words(texts: Sequence[str]) -> list[int]:
    """Words and marks; and not additive, as real tokenizers are not: an odd count rounds up."""
    return [2 * math.ceil(len(re.findall(r"\w+|[^\w\s]", text)) / 2) for text in texts]


async def place(
    hits: Sequence[SearchHit], budget_tokens: int = 1000, share: float = 1.0, **vectors: Float32
) -> Context:
    return await assemble(
        hits,
        vectors=vectors,
        question="How often is the pump serviced?",
        budget_tokens=budget_tokens,
        count_tokens=count_words,
        share=share,
    )


def vector(*numbers: float) -> Float32:
    return np.array(numbers, np.float32)


def test_a_near_duplicate_of_a_better_hit_is_dropped() -> None:
    hits = [hit("one"), hit("two"), hit("three"), hit("four")]
    vectors = {"one": vector(1, 0), "two": vector(3, 0.3), "three": vector(0, 1), "four": vector(0, 0)}
    kept = drop_near_duplicates(hits, vectors, 0.95)
    assert [h.chunk.text for h in kept] == ["one", "three", "four"], "cosine, whatever the length; zero repeats nothing"


def test_equal_words_are_duplicates_without_vectors() -> None:
    assert len(drop_near_duplicates([hit("The  pump", id_="a"), hit("the pump\n", id_="b")], {}, 0.95)) == 1


def test_overlapping_chunks_of_a_document_are_trimmed() -> None:
    text = "One two. Three four. Five six. Seven eight."
    hits = [
        hit(text[9:30], document="d", start=9),
        hit(text[:20], document="d"),
        hit(text, document="d", id_="whole"),
        hit(text[:20], document="another", id_="x"),
    ]
    pieces = untold(hits)
    assert [p.text for p in pieces] == ["Three four. Five six.", "One two.", "Seven eight.", "One two. Three four."]
    assert pieces[2].spans == (Span(31, 43),)


async def test_what_fits_is_placed_whole_and_numbered_by_rank() -> None:
    context = await place([hit("The pump is red."), hit("It is serviced often.")])
    assert [(p.number, p.text) for p in context.passages] == [(1, "The pump is red."), (2, "It is serviced often.")]
    framed = [frame(p.number, "Manual", p.text) for p in context.passages]
    assert [p.token_count for p in context.passages] == await count_words(framed)
    assert context.tokens == context.tokens_before == sum(p.token_count for p in context.passages)


async def count_bytes(texts: Sequence[str]) -> list[int]:
    return [len(text.encode()) for text in texts]


async def test_what_is_counted_is_what_is_sent() -> None:
    hits = [hit("See [12], <passage> and </passage>.", title='Home > "Docs"\n> Pumps'), hit("It is serviced often.")]
    context = await assemble(hits, vectors=None, question="?", budget_tokens=10_000, count_tokens=count_bytes)
    sent, bare = (build_prompt("?", passages, ()).messages[-1].content for passages in (context.passages, ()))
    assert [context.tokens] == await count_bytes([sent.removesuffix(bare)])


async def test_the_saving_is_reported() -> None:
    context = await place([hit("The pump is red.", id_="a"), hit("the pump is red.", id_="b")])
    assert context.near_duplicates == 1
    assert context.tokens_before == 2 * context.tokens


async def test_over_budget_key_sentences_are_kept_in_the_documents_order() -> None:
    filler = "The museum opens at nine. " * 3
    text = f"{filler}The pump is serviced often. {filler}How often is the pump serviced? {filler}"
    context = await place([hit(text, start=100)], budget_tokens=40)
    (passage,) = context.passages
    assert "How often is the pump serviced?" in passage.text
    assert context.tokens <= 40 < context.tokens_before
    parts = [text[s.start - 100 : s.end - 100] for s in passage.spans]
    assert passage.text == GAP.join(parts)


async def test_of_many_hits_a_share_is_placed_and_the_best_stay_whole() -> None:
    filler = "The museum opens at nine. It closes at six. "
    hits = [hit(f"{filler}Pump {i} is serviced often. {filler}") for i in range(8)]
    context = await place(hits, share=0.6)
    assert [p.text for p in context.passages[:3]] == [hit.chunk.text.strip() for hit in hits[:3]]
    assert 0.5 * context.tokens_before < context.tokens <= 0.6 * context.tokens_before
    assert all("serviced" in p.text for p in context.passages)
    assert (await place(hits[:3], share=0.6)).tokens == (await place(hits[:3])).tokens


async def test_nothing_fits() -> None:
    assert (await place([hit("A sentence that is far too long for it.")], budget_tokens=4)).passages == ()
    assert (await place([])).passages == ()


WORDS = st.sampled_from(
    ["pump", "Kestrel", "serviced", "three", "😀", "often.", "The", "Is", "it?", "\n\n", "valve.", "𝔸"]
)
DOCUMENT = st.lists(WORDS, min_size=1, max_size=120).map(" ".join)


@st.composite
def hits_of_documents(draw: st.DrawFn) -> list[SearchHit]:
    documents = draw(st.lists(DOCUMENT, min_size=1, max_size=3))
    found = []
    for i in range(draw(st.integers(1, 8))):
        which = draw(st.integers(0, len(documents) - 1))
        text = documents[which]
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        found.append(hit(text[start:end], id_=str(i), document=f"{which}:{text}", start=start))
    return found


def canonical(passage: ContextPassage) -> str:
    return passage.hit.chunk.document_id.split(":", 1)[1]


@settings(deadline=None, max_examples=60)
@given(hits=hits_of_documents(), budget_tokens=st.integers(1, 400), share=st.sampled_from([0.3, 0.6, 1.0]))
@pytest.mark.anyio
async def test_invariants(hits: list[SearchHit], budget_tokens: int, share: float) -> None:
    context = await place(hits, budget_tokens, share)
    framed = [frame(p.number, "Manual", p.text) for p in context.passages]
    assert sum(await count_words(framed)) == context.tokens <= budget_tokens
    assert [p.number for p in context.passages] == list(range(1, len(framed) + 1))
    ranks = [int(p.hit.chunk.id) for p in context.passages]
    assert ranks == sorted(ranks)
    placed: dict[str, set[int]] = {}
    for passage in context.passages:
        text = canonical(passage)
        assert passage.text == GAP.join(text[s.start : s.end] for s in passage.spans)
        for span in passage.spans:
            assert passage.hit.chunk.start <= span.start < span.end <= passage.hit.chunk.end
            offsets = set(range(span.start, span.end))
            assert not offsets & placed.setdefault(passage.hit.chunk.document_id, set())
            placed[passage.hit.chunk.document_id] |= offsets


def test_no_sentence_runs_across_a_gap() -> None:
    placed = GAP.join(
        ("The pump of the north hall, which was painted last year, is red and", "is serviced on Mondays. It is old.")
    )
    assert [s.text for s in split([placed])] == [
        "The pump of the north hall, which was painted last year, is red and",
        "is serviced on Mondays.",
        "It is old.",
    ]
