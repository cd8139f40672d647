"""Answers: their metrics by hand, and the served pipeline judged by them on a corpus of three paragraphs."""

import json
from pathlib import Path

import pytest

from eval.answer_metrics import Table, auc, exact_match, f1, holds, normalise, quantile, refused, without_markers
from eval.answerability import scores
from eval.answers import (
    ANSWERS_HEAD,
    CITATIONS_HEAD,
    answer_all,
    answers_row,
    baseline_rows,
    citation_rows,
    first_sentence,
)
from eval.context import measure
from eval.squad import KINDS, ask_all, every, questions_of, serve_squad


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


# --- served answers --------------------------------------------------------------------------------------------------

PARAGRAPHS = {
    "Pumps#0": "The Kestrel pump moves forty litres a minute. It was built in Bergen in 1931.",
    "Pumps#1": "A drained pump may be stored for two years. Oil is changed each spring.",
    "Harbours#0": "The harbour office opens at seven. Ships call on channel twelve before they enter.",
}
ASKED = {
    "q0": ("Where was the Kestrel pump built?", "Pumps#0", ["Bergen"]),
    "q1": ("How long may a drained pump be stored?", "Pumps#1", ["two years"]),
    "q2": ("Which channel do ships call on before they enter?", "Harbours#0", ["twelve", "channel twelve"]),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    squad, scifact = tmp_path / "squad", tmp_path / "scifact"
    squad.mkdir()
    scifact.mkdir()

    def write(path: Path, rows: list[dict[str, object]]) -> None:
        path.write_text("\n".join(map(json.dumps, rows)))

    write(squad / "corpus.jsonl", [{"_id": id_, "title": id_[:-2], "text": t} for id_, t in PARAGRAPHS.items()])
    write(
        squad / "queries.jsonl",
        [{"_id": id_, "text": t, "paragraph": p, "answers": a} for id_, (t, p, a) in ASKED.items()],
    )
    rows = ["query-id\tcorpus-id\tscore", *(f"{id_}\t{paragraph}\t1" for id_, (_, paragraph, _) in ASKED.items())]
    (squad / "qrels.tsv").write_text("\n".join(rows))
    unanswered = {"_id": "u0", "text": "Who built the harbour office?", "paragraph": "Harbours#0"}
    write(squad / "unanswerable.jsonl", [unanswered])
    write(scifact / "queries.jsonl", [{"_id": "f0", "text": "Zymurgy quaffs jovial xylophones."}])
    return tmp_path


async def test_answers_come_from_the_served_pipeline_and_are_judged(data: Path) -> None:
    async with serve_squad(data, data / "desk", embedder="fake") as squad:
        questions = [(kind, question) for kind in KINDS for question in questions_of(data, kind, 10)]
        answered = await answer_all(squad, questions)
        first = answered[0]
        assert first.answer.generator == "extractive"
        assert [span.holds_gold for span in first.cited] == ["Bergen" in c.quote for c in first.answer.citations]
        assert squad.paragraph_of(first.answer.search.hits[0].chunk) == "Pumps#0"
        assert first.passages[0].holds_gold
        assert first.passages[0].words == len(PARAGRAPHS["Pumps#0"].split())
        row = dict(zip(ANSWERS_HEAD, answers_row("extractive", answered), strict=True))
        assert row["questions"] == "3 / 1 / 1"
        own, sentence, one, everything = citation_rows("extractive", answered)
        cited = dict(zip(CITATIONS_HEAD, everything, strict=True))
        assert (cited["recall"], cited["spans an answer"]) == ("1.000", "3.00")
        assert cited["precision"] == f"{3 / 9:.3f}"
        assert float(one[3]) == float(one[2]) <= 1
        assert own[1] == "3"
        # "Bergen" and "twelve" are in second sentences
        assert [first_sentence(a) for a in answered[:2]] == [
            "The Kestrel pump moves forty litres a minute.", "A drained pump may be stored for two years.",
        ]  # fmt: skip
        assert dict(zip(CITATIONS_HEAD, sentence, strict=True))["recall"] == f"{1 / 3:.3f}"
        never, always = (dict(zip(ANSWERS_HEAD, row, strict=True)) for row in baseline_rows("extractive", answered))
        assert (never["questions"], never["F1"], never["refused, foreign"]) == ("3 / 1 / 1", "0.000", "1.00")
        # "two years" of "drained pump may be stored for two years": 2 · 2 / (8 + 2)
        assert (always["EM"], always["F1"]) == ("0.000", f"{0.4 / 3:.3f}")
        assert (always["refused, adversarial"], always["ms an answer, p50"]) == ("0.00", "-")


FILL = (
    "Gauges show how much pressure a pump gives. Red ones are broken.",
    "Whoever drains a pump signs the blue ledger. It hangs beside doors.",
    "Harbour pilots carry brass lamps. Their oil comes by train.",
    "Ships longer than sixty metres wait outside. Fog closes everything.",
    "Bergen sells herring, timber and rope. Markets begin on Tuesdays.",
)


async def test_a_smaller_share_places_fewer_tokens(data: Path) -> None:
    with (data / "squad" / "corpus.jsonl").open("a") as corpus:
        for i, text in enumerate(FILL):
            corpus.write("\n" + json.dumps({"_id": f"Fill#{i}", "title": "Fill", "text": text}))
    async with serve_squad(data, data / "desk", embedder="fake") as squad:
        questions = questions_of(data, "answerable", 10)
        whole, little = [await measure(squad, questions, share) for share in (1.0, 0.5)]
    assert whole.after == whole.before == little.before
    assert little.after < 0.6 * little.before
    assert little.in_context <= whole.in_context == 1


async def test_answerability_is_judged_by_what_a_search_found(data: Path) -> None:
    async with serve_squad(data, data / "desk", embedder="fake") as squad:
        asked = await ask_all(squad, data, 10)
    assert [a.kind for a in asked] == ["answerable"] * 3 + ["adversarial", "foreign"]
    assert scores(asked, "answerable")[0] == asked[0].result.best_rerank > scores(asked, "foreign")[0]
    assert scores(asked, "answerable", 1) == scores(asked, "answerable")[1::2]
