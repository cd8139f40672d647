"""Citations: every quote is the text it points at, every sentence is judged, and embedding stays one small call."""

import asyncio
import hashlib
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import QueryEmbedding
from models.fake import FakeEmbedder
from models.markers import answer_spans, markers
from models.openvino import OpenVinoEmbedder
from models.store import ModelStore
from server.base import ContextPassage, Span
from server.cite import cite
from server.context import GAP, slice_of
from tests.test_context import hit

EMBEDDER = FakeEmbedder()
PUMP = (
    "The Kestrel pump moves 40 litres a minute. It must be serviced every 6 months. "
    "The service takes two hours and is done by Weber GmbH. Spare valves are kept in room 12."
)
MUSEUM = "The museum opens at nine. On Mondays it stays closed. Children under 12 pay nothing."


def passage(number: int, text: str, *, start: int = 0, spans: Sequence[Span] = (), title: str = "") -> ContextPassage:
    placed = tuple(spans) or (Span(start, start + len(text)),)
    found = hit(text, id_=f"chunk {number}", document=f"document {number}", start=start, title=title)
    return ContextPassage(number, found, placed, GAP.join(slice_of(found, span) for span in placed), 0)


async def test_the_cited_passage_is_quoted() -> None:
    answer = "It must be serviced every 6 months [1]. The museum opens at nine [2]."
    citations, sentences = await cite(answer, [passage(1, PUMP, start=500), passage(2, MUSEUM)], EMBEDDER)
    assert [c.quote for c in citations] == ["It must be serviced every 6 months.", "The museum opens at nine."]
    assert [c.number for c in citations] == [1, 2]
    assert citations[0].start == 500 + PUMP.index("It must")
    assert citations[0].quote_sha256 == hashlib.sha256(citations[0].quote.encode()).hexdigest()
    assert [answer[s.start : s.end] for s in sentences] == answer.replace("]. ", "].\n").split("\n")
    assert all(s.supported and s.support > 0.9 for s in sentences)
    assert [s.citations for s in sentences] == [(0,), (1,)]
    assert (citations[1].answer_start, citations[1].answer_end) == (sentences[1].start, sentences[1].end)


async def test_without_markers_the_best_passage_is_cited() -> None:
    citations, _ = await cite("On Mondays it stays closed.", [passage(1, PUMP), passage(2, MUSEUM)], EMBEDDER)
    assert [(c.number, c.quote, c.support) for c in citations] == [(2, "On Mondays it stays closed.", 1.0)]


async def test_what_no_passage_says_is_flagged() -> None:
    answer = "It must be serviced every 9 months [1]. Elephants never forget."
    citations, sentences = await cite(answer, [passage(1, PUMP)], EMBEDDER)
    assert [s.supported for s in sentences] == [False, False]
    assert [c.number for c in citations] == [1], "the model cited it, so it is shown, with its low support"
    assert citations[0].support < 0.5
    assert sentences[1].citations == ()


async def test_several_markers_cite_several_passages() -> None:
    answer = "Spare valves are kept in room 12 [1][2]. It opens at nine [2, 1].\n\n[2]"
    citations, sentences = await cite(answer, [passage(1, PUMP), passage(2, MUSEUM)], EMBEDDER)
    assert [c.number for c in citations] == [1, 2, 2, 1]
    assert len(sentences) == 2
    assert sentences[1].end == len(answer), "a line of markers belongs to the sentence before it"


async def test_a_marker_after_a_full_stop_ends_the_sentence_whatever_stands_around_it() -> None:
    said = ["Spare seals come from Weber Inc.", "iPumps need none of them at all.", "on Mondays it stays closed."]
    parts = [f"{said[0]} [1]", f"{said[1]} [1][2]", f"{said[2]} [2]"]
    passages = [passage(1, "\n\n".join(said[:2])), passage(2, f"{said[1]}\n\n{said[2]}")]
    answer = " ".join(parts)
    citations, sentences = await cite(answer, passages, EMBEDDER)
    assert [answer[s.start : s.end] for s in sentences] == parts
    assert [(c.number, c.quote) for c in citations] == [(1, said[0]), (1, said[1]), (2, said[1]), (2, said[2])]
    assert all(s.supported for s in sentences)


async def test_a_marker_in_code_or_of_no_passage_cites_nothing() -> None:
    citations, sentences = await cite("Elephants `a[1]` never forget [7].", [passage(1, PUMP)], EMBEDDER)
    assert citations == ()
    assert not sentences[0].supported


async def test_a_quote_may_run_over_sentences() -> None:
    answer = "The Kestrel pump moves 40 litres a minute and must be serviced every 6 months [1]."
    citations, sentences = await cite(answer, [passage(1, PUMP)], EMBEDDER)
    assert citations[0].quote == PUMP[: PUMP.index(" The service")]
    assert sentences[0].supported


async def test_only_placed_words_are_quoted() -> None:
    cut = PUMP.index("It must")
    placed = passage(1, PUMP, spans=[Span(0, cut - 1), Span(PUMP.index("Spare"), len(PUMP))])
    citations, _ = await cite("It must be serviced every 6 months [1].", [placed], EMBEDDER)
    assert "serviced" not in citations[0].quote


async def test_a_refusal_needs_no_citation() -> None:
    citations, (sentence,) = await cite("The documents do not answer this question.", [], EMBEDDER)
    assert (citations, sentence.supported, sentence.citations) == ((), True, ())
    assert await cite("", [passage(1, PUMP)], EMBEDDER) == ((), ())


async def test_a_closed_embedder_leaves_word_overlap() -> None:
    closed = FakeEmbedder()
    await closed.close()
    answer = "The pump must be serviced every 6 months. Elephants never forget."
    _, sentences = await cite(answer, [passage(1, PUMP)], closed)
    assert [s.supported for s in sentences] == [True, False]


class CountingEmbedder(FakeEmbedder):
    """Counts calls and texts."""

    calls: tuple[int, ...] = ()

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        self.calls = (*self.calls, len(texts))
        return await super().embed_queries(texts)


async def test_one_small_embedding_call_and_none_for_verbatim_sentences() -> None:
    passages = [passage(i, PUMP.replace("Kestrel", f"Kestrel{i}")) for i in range(1, 11)]
    embedder = CountingEmbedder()
    await cite(re.sub(r"\bthe\b", "that", PUMP, flags=re.IGNORECASE) + " A fifth one, too.", passages, embedder)
    assert len(embedder.calls) == 1
    assert embedder.calls[0] <= 15
    embedder = CountingEmbedder()
    await cite("On Mondays it stays closed [1].", [passage(1, MUSEUM)], embedder)
    assert embedder.calls == ()


async def test_a_long_answer_leaves_the_event_loop_to_others() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    text = " ".join(PUMP.replace("Kestrel", f"Kestrel{i}") for i in range(20))
    _, sentences = await cite(text, [passage(1, text)], EMBEDDER)
    task.cancel()
    assert all(s.supported for s in sentences)
    assert turns > 50, "a few are the awaits of cite itself"


WORDS = st.sampled_from(
    ["pump", "Kestrel", "6", "2019.", "serviced", "😀", "often.", "The", "it?", "\n\n", "[1]", "[2]", "[9]", "`", "𝔸."]
)
TEXT = st.lists(WORDS, min_size=1, max_size=40).map(" ".join)


@st.composite
def cut_passages(draw: st.DrawFn) -> list[ContextPassage]:
    """Passages of documents (kept as their titles), of which one or two spans were placed."""
    passages: list[ContextPassage] = []
    for text in draw(st.lists(TEXT, max_size=3)):
        start, first, second, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 4)))
        spans = [Span(a, b) for a, b in ((start, first), (second, end)) if a < b]
        if spans:
            passages.append(passage(len(passages) + 1, text[start:end], start=start, spans=spans, title=text))
    return passages


@settings(deadline=None, max_examples=80)
@given(answer=TEXT | st.just(""), passages=cut_passages())
@pytest.mark.anyio
async def test_every_quote_is_the_text_it_points_at(answer: str, passages: list[ContextPassage]) -> None:
    citations, sentences = await cite(answer, passages, EMBEDDER)
    for c in citations:
        cited = passages[c.number - 1]
        assert c.quote == cited.hit.chunk.title[c.start : c.end] != ""
        assert any(s.start <= c.start and c.end <= s.end for s in cited.spans)
        assert c.quote_sha256 == hashlib.sha256(c.quote.encode()).hexdigest()
        assert 0.0 <= c.support <= 1.0
    assert [i for s in sentences for i in s.citations] == list(range(len(citations)))
    covered = [i for s in sentences for i in range(s.start, s.end)]
    assert covered == sorted(set(covered))
    assert all(any(s.start <= a and b <= s.end for s in sentences) for a, b in answer_spans(answer, markers(answer)))


async def test_a_paraphrase_finds_its_sentence_with_a_real_model() -> None:
    embedder = OpenVinoEmbedder.load(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder"))
    answer = "Maintenance of the pump is due twice a year [1]. You can visit for free if you are younger than 12 [2]."
    try:
        citations, _ = await cite(answer, [passage(1, PUMP, title="Kestrel pump"), passage(2, MUSEUM)], embedder)
    finally:
        await embedder.close()
    assert "Children under 12 pay nothing." in citations[1].quote
    assert re.search(r"serviced|service takes", citations[0].quote)
