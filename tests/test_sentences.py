import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sentences import sentence_spans


def cut(text: str) -> list[str]:
    return [text[a:b] for a, b in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met J. F. Kennedy at 3.5 km, i.e. Far away. Then he left.",
         ["Dr. Smith met J. F. Kennedy at 3.5 km, i.e. Far away.", "Then he left."]),
        ("It happened in the U.S. The court agreed.", ["It happened in the U.S.", "The court agreed."]),
        ("The U.S. Senate sat. See Fig. 3 and No. 7 below.", ["The U.S. Senate sat.", "See Fig. 3 and No. 7 below."]),
        ("Service is due every 6 months. [1] Oil is changed.[2][3] Done.",
         ["Service is due every 6 months. [1]", "Oil is changed.[2][3]", "Done."]),
        ("He said “Stop.” Then he ran (fast.) And fell.", ["He said “Stop.”", "Then he ran (fast.)", "And fell."]),
        ("ポンプは毎月点検する。次は何ですか？「はい。」終わり",
         ["ポンプは毎月点検する。", "次は何ですか？", "「はい。」", "終わり"]),
        ("# Title\nBody one. Body two.\n\n- first item\n- second item. More\n1. third",
         ["# Title", "Body one.", "Body two.", "- first item", "- second item.", "More", "1. third"]),
        ("wrapped by\na line end. Next", ["wrapped by\na line end.", "Next"]),
        ("version 2.0 of example.com costs $1.50 now", ["version 2.0 of example.com costs $1.50 now"]),
        ("Wait... what? Yes… Fine.", ["Wait... what?", "Yes…", "Fine."]),
        ("😀 works. 😀 again.", ["😀 works.", "😀 again."]),
        ("It costs approx. $500 a year. $600 is more.", ["It costs approx. $500 a year.", "$600 is more."]),
        ("Die Frist endet am 3. Oktober. Vgl. § 4 Abs. 2. Es gilt z. B. Art. 5, d. h. alles.",
         ["Die Frist endet am 3. Oktober.", "Vgl. § 4 Abs. 2.", "Es gilt z. B. Art. 5, d. h. alles."]),
        ("Take plan b. A new one comes. It ends here. §", ["Take plan b.", "A new one comes.", "It ends here.", "§"]),
        ("यह एक है। यह दो है।", ["यह एक है।", "यह दो है।"]),
    ],
)  # fmt: skip
def test_cuts_where_a_reader_would(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@given(st.text(alphabet=st.sampled_from(list('ab A.!?。[1]\n-# "”1😀\f\t|')), max_size=80) | st.text(max_size=80))
def test_spans_are_ordered_disjoint_and_lose_only_white_space(text: str) -> None:
    spans = sentence_spans(text)
    previous = 0
    for start, end in spans:
        assert previous <= start < end
        assert text[previous:start].strip() == ""
        assert text[start:end] == text[start:end].strip()
        previous = end
    assert text[previous:].strip() == ""


@pytest.mark.parametrize(
    "piece", ["a. ", ".", "[1]", "\n", " ", "a.b", "(", "1. ", "# \n", "\n\n \t", "“", "..a", ".)", "。"]
)
def test_is_linear(piece: str) -> None:
    started = time.perf_counter()
    sentence_spans(piece * 50_000)
    assert time.perf_counter() - started < 3
