from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from models.streaming import IncrementalDecoder, StopScanner

LETTERS = st.text(alphabet="abc[ ", max_size=30)


@given(LETTERS, st.lists(st.text(alphabet="abc[", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 30)))
def test_any_cut_of_a_text_gives_what_is_before_the_first_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    scanner, sent = StopScanner(stops), ""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        sent += scanner.feed(text[start:end])
        assert text.startswith(sent)
    whole = sent + scanner.finish()
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert whole == (text[: min(ends)[1]] if ends else text)
    assert not any(stop in whole for stop in stops)


def test_only_what_could_begin_a_stop_string_is_held_back() -> None:
    scanner = StopScanner(("END",))
    assert scanner.feed("the E") == "the "
    assert scanner.feed("N") == ""
    assert scanner.feed("O") == "ENO"
    assert scanner.feed("EN") == ""
    assert scanner.finish() == "EN"


def decode(tokens: object) -> str:
    return bytes(tokens).decode(errors="replace")  # type: ignore[call-overload, no-any-return]


@given(st.text(max_size=120))
def test_bytes_come_out_as_whole_characters(text: str) -> None:
    text = text.replace("�", "")
    decoder = IncrementalDecoder(decode)
    parts = [decoder.feed([byte]) for byte in text.encode()]
    assert "".join(parts) == text
    assert "�" not in "".join(parts)
