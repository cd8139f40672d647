"""The chunker: every chunk is an exact slice within the budget, nothing is lost, and structure decides the cuts."""

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexers.base import Chunk, Document, Mark
from indexers.chunk import Chunker, ChunkSettings, Tokenizer
from indexers.pack import CHARS_PER_TOKEN
from indexers.structure import code_points, sentence_starts
from models.base import Tokens
from models.store import ModelStore
from models.tokenizer import CheckpointTokenizer

SPECIAL = 2


class PieceTokenizer:
    """Another kind of tokenizer than BERT's: pieces of up to four characters, a word's with the space before it."""

    fingerprint = "pieces"

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Tokens:
        spans = [match.span() for match in re.finditer(r"\s?\S{1,4}|\s", text)]
        ids = [int.from_bytes(hashlib.blake2s(text[s:e].encode(), digest_size=3).digest()) for s, e in spans]
        return Tokens(np.array(ids, np.int32), np.array(spans, np.int32).reshape(-1, 2))


MINILM = CheckpointTokenizer(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path / "tokenizer.json")
TOKENIZERS = [pytest.param(MINILM, id="minilm"), pytest.param(PieceTokenizer(), id="pieces")]


def document(text: str, *marks: Mark, title: str = "") -> Document:
    return Document("a.txt", title, text, "text/plain", "0" * 64, "text-1", marks)


def chunker(tokenizer: Tokenizer = MINILM, max_tokens: int = 64, overlap: float = 0.1) -> Chunker:
    return Chunker(tokenizer, ChunkSettings(max_tokens, overlap), SPECIAL)


def texts(chunks: list[Chunk], of: Document) -> list[str]:
    return [of.text[chunk.start : chunk.end] for chunk in chunks]


def markdown(text: str) -> list[Mark]:
    found = re.finditer(r"^(#+) (.*)$", text, re.MULTILINE)
    return [Mark("heading", match.start(), len(match[1]), match[2]) for match in found]


SENTENCE = "The pump is serviced twice a year by the people who built it. "
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=400)
SCRIPTS = "word Dr. end. 今日は。 안녕하세요 שלום 👩\u200d👩\u200d👧 e\u0301\u0301 ﷺ \u200b \x01 # | —"
WORDS = [*SCRIPTS.split(" "), "x" * 130, "pneumonoultramicroscopic" * 9, " ", "  ", "\n", "\n\n", "\t", "\u3000"]
WORDY = st.lists(st.sampled_from(WORDS), max_size=300).map("".join)
MARKS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 4), st.text("ab \n", min_size=1, max_size=30)), max_size=8
)


def check(source: Document, chunks: list[Chunk], max_tokens: int) -> None:
    """What holds of any chunks of any document."""
    covered = np.zeros(len(source.text) + 1, dtype=np.bool_)
    for chunk in chunks:
        text = source.text[chunk.start : chunk.end]
        assert text
        assert text == text.strip()
        assert len(chunk.token_ids) + SPECIAL <= max_tokens
        assert chunk.token_count <= len(chunk.token_ids)
        assert chunk.end - chunk.start <= max_tokens * CHARS_PER_TOKEN + 4_000
        covered[chunk.start : chunk.end] = True
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(chunks))
    assert not [c for c, seen in zip(source.text, covered, strict=False) if not seen and not c.isspace()]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(ANY_TEXT, WORDY),
    marks=MARKS,
    title=ANY_TEXT,
    max_tokens=st.integers(34, 80),
    overlap=st.floats(0, 0.5),
)
def test_any_text_is_cut_into_exact_slices_within_the_budget(
    tokenizer: Tokenizer, text: str, marks: list[tuple[int, int, str]], title: str, max_tokens: int, overlap: float
) -> None:
    found = [Mark("heading", min(start, len(text)), level, words) for start, level, words in marks]
    source = document(text, *found, title=title)
    chunks = chunker(tokenizer, max_tokens, overlap).chunk(source)
    check(source, chunks, max_tokens)
    again = chunker(tokenizer, max_tokens, overlap).chunk_batch(
        [document(SENTENCE), document("\n", title="Blank"), source]
    )[2]
    assert [(c.start, c.end, c.context, c.token_ids.tolist()) for c in again] == [
        (c.start, c.end, c.context, c.token_ids.tolist()) for c in chunks
    ]


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.sampled_from(["pump", "serviced", "Kestrel", "2,5", "end.", "\n\n", "日本。"]), max_size=200))
def test_token_ids_are_those_of_context_and_text(words: list[str]) -> None:
    source = document(" ".join(words), title="A handbook of pumps")
    for chunk in chunker().chunk(source):
        whole = MINILM.encode_batch([chunk.context + source.text[chunk.start : chunk.end]])[0]
        assert chunk.token_ids.tolist() == whole.ids.tolist()


@pytest.mark.parametrize("text", ["", "\n" * 5_000, " \t\n\u3000"])
def test_a_text_of_white_space_has_no_chunks(text: str) -> None:
    assert chunker().chunk(document(text, title="Blank")) == []


def test_what_the_tokenizer_drops_is_still_in_a_chunk() -> None:
    source = document("\x01\x02\x03")
    (chunk,) = chunker().chunk(source)
    assert (chunk.start, chunk.end, chunk.token_count) == (0, 3, 0)


def test_a_short_document_is_one_chunk_with_its_title_before_it() -> None:
    source = document(f"\n  {SENTENCE}\n", title="Pump\n handbook")
    (chunk,) = chunker().chunk(source)
    assert chunk.context == "Pump handbook\n"
    assert texts([chunk], source) == [SENTENCE.strip()]
    assert chunk.token_ids.tolist() == MINILM.encode_batch([chunk.context + SENTENCE])[0].ids.tolist()
    assert chunk.token_count == MINILM.count(SENTENCE)


def test_a_long_paragraph_is_cut_between_sentences_and_repeats_the_last() -> None:
    source = document("".join(f"Dr. No. {i} met e.g. the {i}th of the people there. " for i in range(40)))
    chunks = chunker(max_tokens=64, overlap=0.3).chunk(source)
    assert len(chunks) > 5
    for before, after in pairwise(chunks):
        assert source.text[after.start :].startswith("Dr. No. ")
        assert source.text[: before.end].endswith("people there.")
        assert after.start < before.end  # at least a sentence is repeated
    assert chunker(overlap=0).chunk(source)[1].start > chunker(overlap=0).chunk(source)[0].end


def test_overlap_is_about_its_share_of_the_budget() -> None:
    source = document("word " * 5_000)
    chunks = chunker(max_tokens=202, overlap=0.2).chunk(source)
    repeated = {a.end - b.start for a, b in pairwise(chunks)}
    assert repeated == {len("word " * 40) - 1}


def test_paragraphs_and_rows_stay_whole() -> None:
    paragraphs = [SENTENCE * 2] * 12
    source = document("\n\n".join(paragraphs))
    assert all(text.endswith("built it.") for text in texts(chunker(overlap=0).chunk(source), source))
    rows = document("\n".join(f"{i};Name {i};some town" for i in range(300)))
    for text in texts(chunker().chunk(rows), rows):
        assert re.fullmatch(r"(\d+;Name \d+;some town\n?)+", text)


def test_hard_wrapped_lines_are_no_boundaries() -> None:
    words = ("The licence permits the use of these files in any product that is made from them and sold. " * 30).split()
    source = document("\n".join(" ".join(words[i : i + 9]) for i in range(0, len(words), 9)))
    assert all(text.endswith("sold.") for text in texts(chunker(overlap=0).chunk(source), source))


def test_chunks_end_at_headings_and_carry_their_path() -> None:
    text = (
        f"# Pumps\n\nAll of them.\n\n## Kestrel\n\n{SENTENCE * 8}\n\n## Merlin\n\n{SENTENCE * 2}\n\n# Valves\n\nNone."
    )
    source = document(text, *markdown(text), title="Handbook")
    found = [(c.context, c.heading_path, source.text[c.start : c.end].split("\n")[0]) for c in chunker().chunk(source)]
    whole = "Handbook > Pumps > Kestrel\n"
    assert found[0] == ("Handbook\n", ("Pumps",), "# Pumps")  # a small section takes its first subsection along
    assert [(context, path) for context, path, _ in found[1:-2]] == [(whole, ("Pumps", "Kestrel"))] * (len(found) - 3)
    assert found[-2] == ("Handbook > Pumps\n", ("Pumps", "Merlin"), "## Merlin")
    assert found[-1] == ("Handbook\n", ("Valves",), "# Valves")


def test_small_sections_share_a_chunk_under_what_is_above_them_all() -> None:
    text = "# Questions\n" + "".join(f"\n## Is it {i}?\n\nNo.\n" for i in range(12))
    source = document(text, *markdown(text), title="questions")
    chunks = chunker(max_tokens=256).chunk(source)
    assert 1 < len(chunks) < 6
    assert {chunk.heading_path for chunk in chunks} == {("Questions",)}
    assert [chunk.context for chunk in chunks] == ["", *["questions\n"] * (len(chunks) - 1)]  # the title once


def test_a_long_title_leaves_three_quarters_to_the_text() -> None:
    (chunk, *_) = chunker(max_tokens=66).chunk(document(SENTENCE * 9, title="Reports on everything " * 50))
    assert len(chunk.token_ids) - chunk.token_count <= 16
    assert chunk.context.startswith("Reports on everything Reports")
    assert chunk.context.endswith(("on\n", "everything\n", "Reports\n"))


def test_a_chunk_has_the_page_on_which_it_begins() -> None:
    text = SENTENCE * 30
    marks = (Mark("page", 0, 1), Mark("page", 500, 2, "ii"), Mark("page", 1_200, 3))
    for chunk in chunker().chunk(document(text, *marks)):
        assert chunk.page == (1 if chunk.start < 500 else 2 if chunk.start < 1_200 else 3)
    assert chunker().chunk(document(text))[0].page is None


def test_one_endless_word_is_still_cut() -> None:
    source = document("deadbeef" * 20_000)
    chunks = chunker(max_tokens=256).chunk(source)
    check(source, chunks, 256)
    assert len(chunks) > 5


def test_sentences_begin_after_full_stops_of_any_script_but_not_after_abbreviations() -> None:
    text = "See Fig. 3 by J. Doe. It (e.g. Ours?) ran on. “Why?” Dr. No asked… Yes. 今日は。明日！「はい。」次。 "
    text += "v3.5 end. ok. هل؟ نعم"
    starts = [0, *sentence_starts(text, code_points(text)), len(text)]
    assert [text[a:b].strip() for a, b in pairwise(starts)] == [
        "See Fig. 3 by J. Doe.",
        "It (e.g. Ours?) ran on.",
        "“Why?”",
        "Dr. No asked…",
        "Yes.",
        "今日は。",
        "明日！",
        "「はい。」",
        "次。",
        "v3.5 end. ok.",
        "هل؟",
        "نعم",
    ]


def test_the_fingerprint_tells_settings_and_tokenizers_apart() -> None:
    assert chunker().fingerprint == chunker().fingerprint
    others = [chunker(overlap=0.2), chunker(max_tokens=65), chunker(PieceTokenizer())]
    assert len({chunker().fingerprint, *(other.fingerprint for other in others)}) == 4


def test_impossible_settings_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"max_tokens=16 leaves 14 .* at least 34"):
        chunker(max_tokens=16)
    with pytest.raises(ValueError, match=r"overlap=0.9 .* from 0 to 0.5"):
        chunker(overlap=0.9)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n".join(f"{i},name {i},some city,2020-01-{i % 28 + 1}" for i in range(20_000)), id="table"),
        pytest.param(SENTENCE * 16_000, id="prose"),
        pytest.param("." * 1_000_000, id="dots"),
        pytest.param("x" * 1_000_000, id="word"),
    ],
)
def test_cutting_costs_little_beside_tokenising(text: str) -> None:
    """In CPU time of this thread, as the tokenizer's threads and the machine's other work are no part of ours."""
    cut, source = chunker(max_tokens=256), document(text)
    begun = time.thread_time()
    chunks = cut.chunk(source)
    assert time.thread_time() - begun < 3.0
    assert chunks


def test_a_real_document(tmp_path: Path) -> None:
    text = "\n\n".join(f"{SENTENCE * (i % 7)}\n{i}. an item\n\tcode_{i}()" for i in range(200))
    source = replace(document(text), title="A real one")
    check(source, chunker(max_tokens=128).chunk(source), 128)
