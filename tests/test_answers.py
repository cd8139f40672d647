import pytest

from eval.answer_metrics import Table, auc, exact_match, f1, holds, normalise, quantile, refused, without_markers
from eval.squad import every


def test_normalisation_is_squads() -> None:
    assert normalise("  The Eiffel-Tower, an  icon.") == "eiffeltower icon"
    assert without_markers("It is so. [1] And so [2, 3].") == "It is so. And so."


def test_exact_match_and_f1_by_hand() -> None:
    assert exact_match("the 10th century.", ["9th", "10th century"]) == 1
    assert exact_match("10th", ["10th century"]) == 0
    # "in 10th century" against "10th century": two of three and two of two in common, 2 · 2 / 5
    assert f1("in the 10th century", ["10th century"]) == pytest.approx(0.8)
    assert f1("", ["x"]) == f1("x", []) == 0


def test_holds_takes_whole_words() -> None:
    assert holds("Built in 1990, in Paris.", ["1990"])
    assert not holds("Built in 1990s style", ["1990"])
    assert not holds("anything", [""])


def test_auc_and_thresholds_by_hand() -> None:
    assert auc([3, 2], [1, 2]) == pytest.approx(3.5 / 4)
    assert auc([], [1]) == 0.5
    assert refused([1, 2, 3, 4], 3) == 0.5
    assert quantile([4, 1, 3, 2], 0.5) == 3


def test_every_is_spread_and_keeps_the_order() -> None:
    assert every(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert every([1, 2], 5) == [1, 2]
    assert every([1, 2], 0) == []


def test_a_table_is_markdown() -> None:
    assert str(Table(["a", "b"], [["x", "1"]])) == "| a | b |\n| --- | ---: |\n| x | 1 |"
