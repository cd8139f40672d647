"""Markers: known ones pass, unknown ones never do, and no cut of the stream changes a character."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.markers import MAX_GROUP_CHARS, Marker, MarkerFilter, markers, without_markers


def filtered(text: str, known: int = 3) -> str:
    stream = MarkerFilter(known)
    return stream.feed(text) + stream.finish()


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("The pump runs [1].", "The pump runs [1]."),
        ("Both agree [1, 2].", "Both agree [1, 2]."),
        ("Both agree [1][2].", "Both agree [1][2]."),
        ("Nobody says so [7].", "Nobody says so."),
        ("Nobody says so [7] here", "Nobody says so here"),
        ("One of them [2, 7].", "One of them [2]."),
        ("One of them [7][2].", "One of them [2]."),
        ("One of them [2][7].", "One of them [2]."),
        ("None of them [7][8, 9].", "None of them."),
        ("Run [7]together", "Run together"),
        ("At the end [7]", "At the end"),
        ("An open [1", "An open [1"),
        ("A space at the end ", "A space at the end "),
        ("[0] [100] [01] [a] [] [1-3] [1;2]", "[0] [100] [01] [a] [] [1-3] [1;2]"),
        ("[[1]] and [[7]]", "[[1]] and []"),
        ("pieces: [[7]9] [1,[7]2]", "pieces: [9 [1,2"),
        ("See [[7]2]] now", "See [2 now"),
        ("too long [1, 2, 3, 4, 5, 6]", "too long [1, 2, 3, 4, 5, 6]"),
        ("`a[7]` and a[7]", "`a[7]` and a"),
        ("``a`[7]`` then [7].", "``a`[7]`` then."),
        ("an odd ` mark [7]\nnext line [7].", "an odd ` mark [7]\nnext line."),
        ("```python\nx[7]\n```\nout [7].", "```python\nx[7]\n```\nout."),
        ("  ~~~\n```\nx[7]\n~~~~ \nout [7].", "  ~~~\n```\nx[7]\n~~~~ \nout."),
        ("```\nx[7]\n``` no end\nx[7]", "```\nx[7]\n``` no end\nx[7]"),
        ("```x[7]``` out [7].", "```x[7]``` out."),
        ("𝔸 [7] 😀[1]", "𝔸 😀[1]"),
    ],
)
def test_what_is_sent(text: str, sent: str) -> None:
    assert filtered(text) == sent


def test_only_an_open_group_is_held_back() -> None:
    stream = MarkerFilter(3)
    assert stream.feed("so it is [") == "so it is"
    assert stream.feed("1") == ""
    assert stream.feed(" of") == " [1 of"
    assert stream.feed(" [1, 2, 3, 1, 2, 3") == " [1, 2, 3, 1, 2, 3"


PIECES = st.sampled_from(
    ["[", "]", "1", "3", "7", "12", ",", ", ", " ", "`", "```", "~~~", "\n", "a", "😀", "[7]", "[2]"]
)
NESTED = st.sampled_from(["[", "]", "[7]", "2"])
TEXTS = st.lists(PIECES, max_size=30).map("".join) | st.lists(NESTED, max_size=12).map("".join) | st.text(max_size=40)


@given(text=TEXTS, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_every_cut_gives_the_same_text(text: str, cuts: list[int]) -> None:
    bounds = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    whole = filtered(text)
    for pieces in ([text[a:b] for a, b in pairwise(bounds)], list(text)):
        stream = MarkerFilter(3)
        assert "".join([*(stream.feed(p) for p in pieces), stream.finish()]) == whole


@given(text=TEXTS)
def test_at_most_a_group_and_its_space_is_held_back(text: str) -> None:
    stream, sent = MarkerFilter(99), ""
    for i, char in enumerate(text, 1):
        sent += stream.feed(char)
        assert i - len(sent) <= MAX_GROUP_CHARS
    assert sent + stream.finish() == text, "with every number known nothing changes"


@given(text=TEXTS, known=st.integers(0, 99))
def test_no_unknown_marker_is_ever_sent(text: str, known: int) -> None:
    sent = filtered(text, known)
    assert all(n <= known for m in markers(sent) for n in m.numbers)
    assert filtered(sent, known) == sent


@given(text=TEXTS)
def test_markers_are_slices_outside_code(text: str) -> None:
    for m in markers(text):
        assert tuple(int(n) for n in text[m.start + 1 : m.end - 1].split(",")) == m.numbers
        assert text[m.start] == "["
        assert text[m.end - 1] == "]"


def test_markers_are_found_by_code_point() -> None:
    assert markers("😀 [1], `[2]` [3, 12]") == [Marker(2, 5, (1,)), Marker(13, 20, (3, 12))]


def test_without_markers() -> None:
    assert without_markers("It runs [1][2], twice [3].") == "It runs, twice."


def test_a_list_of_numbers_that_is_no_marker_takes_no_square_of_its_length() -> None:
    text = "a.[" + "1," * 60_000 + "1]"
    markers = MarkerFilter(3)
    assert markers.feed(text) + markers.finish() == text
