"""The support formula: hand-worked values, monotone evidence, and what a missing number or name does."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.support import Scored, around_table, choose_threshold, error_rate, report
from eval.support import score as score_pairs
from eval.support_pairs import NEGATIVES, POSITIVES, Pair, Paragraph, statement
from models.fake import FakeEmbedder
from server.base import InvalidRequestError
from server.support import DEFAULT_THRESHOLD, Evidence, compare, coverage, join, support, terms

PASSAGE = "The Kestrel pump must be serviced every 6 months. Its valve was replaced in March 2019 by Anna Weber."
PERFECT = Evidence(1.0, 1.0, 0, 0, 0, 0, negation_differs=False)


def score(answer: str, quote: str, background: str = "", cosine: float = 0.9) -> float:
    around = join([terms(quote), terms(background)])
    return support(compare(terms(answer), terms(quote), around, cosine))


def test_by_hand() -> None:
    assert support(PERFECT) == 1.0
    assert support(Evidence(0.8, 0.5, 0, 0, 0, 0, negation_differs=False)) == pytest.approx(0.7 * 0.8 + 0.3 * 0.5)
    assert support(Evidence(1.0, 1.0, 1, 1, 1, 1, negation_differs=True)) == pytest.approx(0.3 * 0.6 * 0.5 * 0.85 * 0.8)


@given(
    st.builds(
        Evidence,
        st.floats(-1, 1),
        st.floats(0, 1),
        st.integers(0, 4),
        st.integers(0, 4),
        st.integers(0, 4),
        st.integers(0, 4),
        st.booleans(),
    )
)
def test_support_is_a_share_and_missing_facts_never_raise_it(evidence: Evidence) -> None:
    value = support(evidence)
    assert 0.0 <= value <= 1.0
    for name in ("numbers_absent", "numbers_near", "names_absent", "names_near"):
        worse = dataclasses.replace(evidence, **{name: getattr(evidence, name) + 1})
        assert support(worse) <= value


def test_terms() -> None:
    found = terms("In 1,066 the 10th Duke (William's) did not cross twelve rivers.")
    assert found.numbers == {"1066", "10", "12"}
    assert found.names == {"duke", "william"}
    assert found.is_negated
    assert {"in", "the", "duke", "willi", "river"} <= found.words


def test_a_first_word_is_a_name_only_if_a_capital_follows() -> None:
    assert terms("Pumps need care.").names == frozenset()
    assert terms("Kestrel Pumps need care.").names == {"kestrel", "pumps"}
    assert terms("NATO met.").names == {"nato"}
    assert terms("However, Weber came.").names == {"weber"}


def test_unspaced_scripts_are_compared_by_pairs_of_characters() -> None:
    assert terms("ポンプ").words == {"ポン", "ンプ"}
    assert coverage(terms("ポンプの点検"), terms("このポンプの点検は毎年")) == 1.0


def test_coverage_by_hand() -> None:
    assert coverage(terms("the pump runs"), terms("a pump stops")) == pytest.approx(1.0 / 2.2)
    assert coverage(terms(""), terms("a pump")) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "The Kestrel pump must be serviced every 6 months.",
        "The pump must be serviced every six months.",
        "Every 6 months the Kestrel pump must be serviced.",
    ],
)
def test_paraphrases_are_supported(answer: str) -> None:
    assert score(answer, PASSAGE.split(". ")[0]) >= DEFAULT_THRESHOLD


@pytest.mark.parametrize(
    "answer",
    [
        "The Kestrel pump must be serviced every 9 months.",
        "The Falcon pump must be serviced every 6 months.",
        "The valve was replaced in March 2018 by Anna Weber.",
        "The valve was replaced in April 2019 by Anna Weber.",
    ],
)
def test_a_swapped_number_or_name_is_not(answer: str) -> None:
    quote = PASSAGE.split(". ")[1 if "valve" in answer else 0]
    assert score(answer, quote, PASSAGE, cosine=0.97) < DEFAULT_THRESHOLD


def test_a_name_from_the_title_weighs_less_than_one_from_nowhere() -> None:
    answer, quote = "The Kestrel pump is serviced yearly.", "It is serviced yearly."
    assert score(answer, quote) < score(answer, quote, "Kestrel pump") < 1.0


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("In what country is Normandy located?", "France", "In France is Normandy located."),
        ("Who was the duke?", "Rollo", "Rollo was the duke."),
        ("How many people died?", "40", "40 people died."),
        ("The duke swore fealty to whom?", "Charles III", "The duke swore fealty to Charles III."),
        ("Name the duke.", "Rollo", "Name the duke: Rollo."),
    ],
)
def test_a_question_and_an_answer_make_a_statement(question: str, answer: str, said: str) -> None:
    assert statement(question, answer) == said


def test_the_threshold_is_where_errors_are_fewest() -> None:
    scored = [Scored(kind, True, 0.8) for kind in POSITIVES] + [Scored(kind, True, 0.3) for kind in NEGATIVES]
    assert choose_threshold(scored) == 0.31
    assert error_rate(scored, "plausible", 0.3) == 1.0
    assert error_rate(scored, "verbatim", 0.81) == 1.0


async def test_vectors_of_one_precision_are_not_used_for_another_and_the_report_names_it(tmp_path: Path) -> None:
    paragraph = Paragraph("p", "Pumps", PASSAGE, terms(PASSAGE))
    pairs = [Pair("verbatim", paragraph.sentences()[0], paragraph)]
    for precision in ("f32", "int8"):
        embedder = FakeEmbedder()
        embedder.info = dataclasses.replace(embedder.info, precision=precision)
        scored = await score_pairs(pairs, embedder, tmp_path)
        assert report(scored, embedder.info).startswith(f"fake in {precision}.\n")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a<!-- eval.support: begin -->old<!-- eval.support: end -->z")
    assert around_table(page) == ("a", "z")
    for text in ("nothing", "a<!-- eval.support: end -->b<!-- eval.support: begin -->z"):
        page.write_text(text)
        with pytest.raises(InvalidRequestError, match=r"holds no place for the table"):
            around_table(page)
