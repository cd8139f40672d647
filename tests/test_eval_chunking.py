"""Token-level metrics of retrieved spans, by hand and by invariant; other ways of cutting; the corpora."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.chunking import DEFAULT, Marked, Measured, Way, read_corpora, results, table
from eval.span_metrics import TokenSpan, overlap, positions, token_span, within
from eval.strategies import SpanChunker, windows
from indexers.base import Document
from indexers.chunk import ChunkSettings
from models.fake import FakeEmbedder, WordTokenizer

TEXT = "one two three four five six seven eight nine ten"
spans = st.builds(
    lambda document, first, size: TokenSpan(document, first, first + size),
    st.sampled_from("ab"),
    st.integers(0, 30),
    st.integers(0, 12),
)


def test_recall_precision_and_iou_by_hand() -> None:
    # 10 wanted; retrieved are 8 and 6 tokens, 2 of them twice: 7 of the wanted are among them
    found = overlap([TokenSpan("a", 0, 10)], [TokenSpan("a", 3, 11), TokenSpan("a", 9, 15)])
    assert (found.recall, found.precision, found.iou) == pytest.approx((7 / 10, 7 / 14, 7 / (10 + 14 - 7)))
    assert overlap([TokenSpan("a", 0, 10)], []).iou == 0
    assert overlap([TokenSpan("a", 0, 10)], [TokenSpan("b", 0, 10)]).recall == 0


def test_a_span_of_text_is_the_tokens_it_touches() -> None:
    [tokens] = WordTokenizer().encode_batch([TEXT])
    assert token_span("a", tokens.offsets, 4, 13) == TokenSpan("a", 1, 3)  # "two three"
    assert token_span("a", tokens.offsets, 5, 6) == TokenSpan("a", 1, 2)  # within "two"
    assert len(token_span("a", tokens.offsets, 3, 4)) == 0  # the space after "one"


def test_a_budget_holds_no_token_twice_and_cuts_the_last_span() -> None:
    given_ = [TokenSpan("a", 0, 4), TokenSpan("a", 2, 6), TokenSpan("b", 0, 4), TokenSpan("b", 9, 12)]
    assert within(given_, 7) == [TokenSpan("a", 0, 4), TokenSpan("a", 2, 6), TokenSpan("b", 0, 1)]


@given(st.lists(spans, max_size=6), st.lists(spans, max_size=8), st.integers(1, 40))
def test_more_context_never_recalls_less_and_never_exceeds_its_budget(
    wanted: list[TokenSpan], retrieved: list[TokenSpan], budget: int
) -> None:
    some, more = within(retrieved, budget), within(retrieved, budget + 5)
    assert len(positions(some)) <= budget
    assert positions(some) <= positions(more) <= positions(retrieved)
    if sum(map(len, retrieved)) <= budget:
        assert positions(some) == positions(retrieved)
    found = overlap(wanted, retrieved)
    assert 0 <= found.iou <= min(found.recall, found.precision) <= 1 or not wanted


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_windows_cover_the_text_and_repeat_what_they_should(share: float) -> None:
    cut = windows(WordTokenizer(), 4, share)(TEXT)
    [tokens] = WordTokenizer().encode_batch([TEXT])
    found = [token_span("a", tokens.offsets, *span) for span in cut]
    assert positions(found) == {("a", i) for i in range(10)}
    assert all(len(span) == 4 for span in found[:-1])
    steps = {b.first - a.first for a, b in pairwise(found)}
    assert steps == {round(4 * (1 - share))}


def test_chunks_of_given_spans_hold_what_the_embedder_takes() -> None:
    tokenizer = WordTokenizer()
    document = Document("a.txt", "Numbers", f"  {TEXT * 9} ", "text/plain", "", "text-1")
    settings = ChunkSettings(40, 0)
    chunker = SpanChunker(tokenizer, settings, 2, lambda text: [(0, len(text)), (0, 1)], "whole")
    [chunk] = chunker.chunk(document)  # the second span has no visible character
    assert document.text[chunk.start : chunk.end].startswith("one two")
    assert len(chunk.token_ids) == 38  # the title, and as much of the text as the model takes
    assert chunk.token_count == tokenizer.count(document.text[chunk.start : chunk.end]) == 37
    other = SpanChunker(tokenizer, settings, 2, lambda text: [], "nothing")
    assert other.fingerprint != chunker.fingerprint
    assert other.chunk(document) == []


def test_corpora_are_read_with_offsets_into_the_text_as_it_is_stored(tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "numbers.md").write_text(f"  {TEXT}\n")
    row = {"question": "Which?", "corpus_id": "numbers", "references": [{"start_index": 6, "end_index": 9}]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row))
    texts, [question] = read_corpora(tmp_path)
    [(name, start, end)] = question.wanted
    assert texts[name][start:end] == "two"
    assert np.array_equal(texts[name], TEXT)


def test_what_was_measured_counts_for_the_same_texts_questions_model_and_precision_only(tmp_path: Path) -> None:
    texts, questions, info = {"numbers": TEXT}, [Marked("Which?", [("numbers", 0, 3)])], FakeEmbedder().info
    kept = results(tmp_path, texts, questions, info)
    assert kept == results(tmp_path, dict(texts), list(questions), replace(info))
    for other in (
        results(tmp_path, {"numbers": TEXT + " eleven"}, questions, info),
        results(tmp_path, texts, [replace(questions[0], wanted=[("numbers", 0, 7)])], info),
        results(tmp_path, texts, questions, replace(info, fingerprint="of another model")),
        results(tmp_path, texts, questions, replace(info, precision="int8")),
    ):
        assert other != kept


def test_without_the_default_way_nothing_has_a_p() -> None:
    default, other = (
        Measured(way, 1, 0.5, 0.5, 0.5, 9, {"500": 0.5}, judged)
        for way, judged in ((DEFAULT, [1.0]), (Way("windows", 128, 0.2), [0.0]))
    )
    assert [row[-1] for row in table([default, other]).rows] == ["", "1.000"]
    assert [row[-1] for row in table([other]).rows] == [""]
