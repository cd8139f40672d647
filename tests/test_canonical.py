"""Canonical text for any string, and marks that stay exact while it is built."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexers.canonical import TextBuilder, TooLongError, canonical

# Letters, marks that compose, reorder and double under NFC, Hangul parts, surrogates, line ends.
AWKWARD = st.text(
    st.one_of(
        st.sampled_from(
            "aeo\u00ad\u200b\u03b1 \r\n\t\0\u0301\u0316\u0344\u0308\u0338\u1100\u1161\u11a8\u212b\ud83e\udd86"
            "\u0958\ufb1d"
        ),
        st.characters(),
        st.characters(categories=["Cs", "Mn", "Cc"]),
    )
)


@given(AWKWARD)
def test_canonical_text_is_nfc_without_odd_characters_and_stays_so(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not set(once) & {"\r", "\0", "\u00ad"}
    once.encode("utf-8")  # no lone surrogate


@given(st.integers(0, 80), st.sampled_from("\u0301\u0344\u0316"))
def test_runs_of_marks_are_cut_at_thirty(count: int, mark: str) -> None:
    once = canonical("a" + mark * count + "b")
    assert canonical(once) == once
    assert once.endswith("b")
    assert sum(unicodedata.combining(c) != 0 for c in once) <= 30


def test_a_million_marks_on_one_letter_take_no_time() -> None:
    started = time.monotonic()
    canonical("a" + "\u0316\u0301" * 500_000)
    assert time.monotonic() - started < 5


def test_line_ends_surrogate_pairs_and_composition() -> None:
    assert canonical("a\r\nb\rc\0d") == "a\nb\ncd"
    assert canonical("\ud83e\udd86 \ud83e!") == "🦆 \ufffd!"
    assert canonical("Zoe\u0308") == "Zoë"


def test_what_hides_words_from_search_is_taken_out() -> None:
    assert canonical("Haft\u00adpflicht\u200bver\u200b\u00ad\u200bsicherung") == "Haftpflichtversicherung"
    assert canonical("a/\u200bb สวัสดี\u200bชาวโลก") == "a/\u200bb สวัสดี\u200bชาวโลก"


@given(st.lists(st.tuples(st.sampled_from(["block", "tight", "heading", "page"]), AWKWARD), max_size=20))
def test_marks_of_a_built_text_stand_where_their_words_begin(steps: list[tuple[str, str]]) -> None:
    builder = TextBuilder(10**6)
    for number, (kind, words) in enumerate(steps):
        if kind == "heading":
            builder.heading(1, words)
        elif kind == "page":
            builder.page(number, words)
        else:
            builder.block(words, tight=kind == "tight")
    text = builder.text
    assert canonical(text) == text
    assert text == text.strip() or not text
    for mark in builder.marks:
        assert 0 <= mark.start < len(text)
        assert mark.start == 0 or text[mark.start - 1] == "\n"
        if mark.kind == "heading":
            assert text.startswith(mark.text, mark.start)


def test_pages_without_text_leave_no_mark() -> None:
    builder = TextBuilder(100)
    for number, words in ((1, "one"), (2, " "), (3, "three"), (4, "")):
        builder.page(number)
        builder.block(words)
    assert [(m.level, m.start) for m in builder.marks] == [(1, 0), (3, 5)]
    assert builder.text == "one\n\nthree"


def test_a_text_beyond_its_limit_is_refused() -> None:
    builder = TextBuilder(10)
    with pytest.raises(TooLongError, match="10 characters"):
        builder.block("x" * 11)
