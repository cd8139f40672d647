"""The extractive generator on the real embedder: which sentences it takes, how it shows them, when it refuses."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.base import GenerationOptions, Message, Prompt
from models.extractive import MAX_SENTENCES, SHORTLIST, ExtractiveGenerator, shortlist, split
from models.fake import FakeEmbedder
from models.markers import answer_spans, markers
from models.openvino import OpenVinoEmbedder
from models.overlap import overlap, terms
from models.refusal import REFUSAL, is_refusal
from models.sentences import sentence_spans
from models.shown import shown
from models.store import ModelStore

PUMPS = (
    "The Falcon stands in hall 3. It was bought in 2011 from a dealer in Ghent.",
    "## Kestrel\nThe Kestrel pump must be serviced every six months [12]. Its oil is changed by the operator.",
    "Who may open the valve?\nOnly the shift leader. Visitors wait outside.",
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def generator() -> ExtractiveGenerator:
    return ExtractiveGenerator(OpenVinoEmbedder.load(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")))


async def answer(generator: ExtractiveGenerator, question: str, passages: tuple[str, ...] = PUMPS) -> list[str]:
    prompt = Prompt((Message("user", question),), question, passages)
    return [d.text async for d in generator.generate(prompt, GenerationOptions()) if d.text]


async def test_the_sentence_that_answers_comes_first_with_its_number(generator: ExtractiveGenerator) -> None:
    parts = await answer(generator, "How often is the Kestrel pump serviced?")
    assert parts[0] == "The Kestrel pump must be serviced every six months (12). [2]"
    assert len(parts) <= MAX_SENTENCES
    cut = "".join(parts)
    assert len(sentence_spans(cut)) == len(parts), "each part is one sentence of the answer"


async def test_a_question_in_the_text_is_answered_by_what_follows_it(generator: ExtractiveGenerator) -> None:
    assert (await answer(generator, "Who may open the valve?"))[0] == "Only the shift leader. [3]"


async def test_a_question_about_something_else_is_refused(generator: ExtractiveGenerator) -> None:
    parts = await answer(generator, "Which enzymes regulate the methylation of histones?")
    assert parts == [REFUSAL]
    assert is_refusal("".join(parts))


async def test_passages_without_words_are_no_support(generator: ExtractiveGenerator) -> None:
    assert await answer(generator, "Who?", ("", " \n", "***", "—")) == [REFUSAL]


async def test_a_sentence_longer_than_any_is_given_in_part(generator: ExtractiveGenerator) -> None:
    parts = await answer(generator, "Who opens the valve?", ("the valve is opened by the shift leader and " * 200,))
    assert parts[0].endswith("[1]")
    assert 10 < len(parts[0].split()) < 100
    rows = "\n".join(f"hall {i}\tpump {i * 7}" for i in range(100))
    assert (await answer(generator, "Which pump stands in hall 41?", (rows,)))[0] == "hall 41 pump 287. [1]"


async def test_a_word_longer_than_the_model_takes_is_no_error(generator: ExtractiveGenerator) -> None:
    assert await answer(generator, "Who opens the valve?", ("ab1" * 3000,)) == [REFUSAL]


def test_sentences_come_once_and_headings_and_questions_lead() -> None:
    sentences = split((*PUMPS, "Visitors  wait\noutside. Else."))
    assert [(s.text, s.number, s.lead) for s in sentences][2:] == [
        ("The Kestrel pump must be serviced every six months [12].", 2, "Kestrel"),
        ("Its oil is changed by the operator.", 2, ""),
        ("Only the shift leader.", 3, "Who may open the valve?"),
        ("Visitors wait outside.", 3, ""),
        ("Else.", 4, ""),
    ]


def test_a_short_line_that_tells_something_is_a_sentence_too_and_leads_the_next() -> None:
    lines = ("3.2 Contact", "Opening hours: 9 to 17", "Extension 4411", "Notes:", "客服电话 九", "Hall B")
    sentences = split(("\n\n".join(lines),))
    assert [(s.text, s.lead) for s in sentences] == [
        ("Opening hours: 9 to 17", "3.2 Contact"),
        ("Extension 4411", ""),
        ("Notes:", "Extension 4411"),
        ("客服电话 九", ""),
        ("Hall B", "客服电话 九"),
    ]
    assert [s.text for s in split(("办公室在上海市浦东新区世纪大道一百号\n\n二楼",))] == [
        "办公室在上海市浦东新区世纪大道一百号",
        "二楼",
    ]


def test_overlap_by_hand() -> None:
    texts = ["pump serviced", "pump stands", "valve"]
    # "pump" is in two of three, "serviced" in one: idf ln(1 + 1.5 / 2.5) and ln(1 + 2.5 / 1.5)
    common, rare = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)
    expected = [1.0, common / (common + rare), 0.0]
    assert overlap("Pump service", texts) == pytest.approx(expected)
    assert overlap("?!", texts) == [0.0] * 3
    assert overlap("pump", []) == []


def test_terms_are_short_stems_and_single_cjk_characters() -> None:
    assert terms("Regulated REGULATION ß") == {"regul", "ss"}
    assert terms("点検 valve") == {"点", "検", "valve"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- oil\n  is changed[3]", "oil is changed(3)."),
        ("Oil is changed.[3] [4, 5]", "Oil is changed."),
        ("He said “no.”", "He said “no.”"),
        ("यह एक है।", "यह एक है।"),
        ("「はい。」", "「はい。」"),
        ("from argv[1], x[0], y[2019] and `z[1]`", "from argv(1), x[0], y[2019] and `z[1]`."),
        ("- 5 °C is the lowest", "- 5 °C is the lowest."),
        ("> 40 °C is the limit", "> 40 °C is the limit."),
        ("> quoted", "quoted."),
        ("3. Oktober ist ein Feiertag.", "3. Oktober ist ein Feiertag."),
        ("Press the ` key, not ``.", "Press the `` ` `` key, not ``` `` ```."),
        ("Run `a` or ``b`c``.", "Run `a` or ``b`c``."),
        ("```bash\nkestrel install\n~~~ x\n", "kestrel install."),
        ("- ~~~ a", "a."),
    ],
)
def test_shown_is_one_line_in_the_documents_words(text: str, line: str) -> None:
    assert shown(text) == line


def test_the_number_of_a_list_item_goes_and_that_of_a_date_stays() -> None:
    sentences = split(("Steps:\n1. Close the valve.\n2. Drain it.", "3. Oktober ist ein Feiertag."))
    assert [s.text for s in sentences] == ["Close the valve.", "Drain it.", "3. Oktober ist ein Feiertag."]


QUOTED = st.sampled_from(
    ["`", "``", "```", "~~~", "[1]", "[2, 3]", "word\nword", "\n```", "~~~\n", "\n\n", "\n- ", "- ", "> ",
     "# ", "1. ", "2) ", " ", ". ", ".", "? ", "。", "」", "word", "Inc", "etc", "e.g.", "The", "7",
     "(", ")", "]", "[", "|", "\t", "…", '"'],
)  # fmt: skip
QUOTED_PASSAGE = st.lists(QUOTED, max_size=40).map("".join)


@settings(max_examples=500)
@given(st.lists(QUOTED_PASSAGE | st.text(max_size=60), max_size=3))
def test_every_sentence_quoted_is_one_of_the_answer_and_its_number_is_found(passages: list[str]) -> None:
    pieces = [f"{shown(s.text)} [{s.number}]" for s in split(passages)]
    answer = " ".join(pieces)
    found = markers(answer)
    spans = answer_spans(answer, found)
    assert [answer[start:end] for start, end in spans] == pieces
    assert [marker.end for marker in found] == [end for _, end in spans], "one marker each, at its end"


@given(st.lists(st.text(max_size=60), max_size=12), st.text(max_size=40))
def test_the_shortlist_is_short_in_order_and_of_the_passages(passages: list[str], question: str) -> None:
    sentences = split(passages)
    chosen = [sentence for sentence, _ in shortlist(question, sentences)]
    assert len(chosen) == min(SHORTLIST, len(sentences))
    assert [s.number for s in chosen] == sorted(s.number for s in chosen)
    assert all(s.text in passages[s.number - 1] for s in chosen)


async def test_max_tokens_cuts_between_words_and_changes_nothing_before_the_cut() -> None:
    generator = ExtractiveGenerator(FakeEmbedder(), refusal_threshold=-1)
    prompt = Prompt((), "Who is it?", ("One two three four five six.", "Seven eight nine ten eleven."))

    async def said(max_tokens: int) -> tuple[str, str | None]:
        options = GenerationOptions(max_tokens=max_tokens)
        parts = [d async for d in generator.generate(prompt, options)]
        return "".join(p.text for p in parts), parts[-1].finish_reason

    whole, reason = await said(512)
    assert (len(sentence_spans(whole)), reason) == (2, "stop")
    cuts = [await said(max_tokens) for max_tokens in range(1, 30)]
    assert len({text for text, _ in cuts}) > 10
    for text, reason in cuts:
        assert whole.startswith(text)
        assert f"{whole} "[len(text)] == " "
        assert reason == ("stop" if text == whole else "length")


def test_a_tables_header_and_headings_in_a_row_lead_and_answer_nothing() -> None:
    table = "| Class | Rate |\n|:---|---:|\n| B2 | 120.50 |\n| C3 | 145.90 |"
    passage = f"# Handbook\n\n## Rates of the fleet\n\n{table}\n\n## Depots\n\nAll are in Bern.\n\n## Next"
    found = split([passage])
    assert [sentence.text for sentence in found] == ["| B2 | 120.50 |", "| C3 | 145.90 |", "All are in Bern."]
    assert found[0].lead == found[1].lead == "Handbook Rates of the fleet | Class | Rate |"
    assert found[2].lead == "Depots"


def test_numbers_and_names_with_digits_count_whole() -> None:
    texts = ["Invoice 4711030 is of 310 EUR.", "Invoice 4711033 is of 330 EUR.", "REFDESK_PORT, REFDESK_RETENTION_S"]
    first, second, _ = overlap("What is invoice 4711033 of?", texts)
    assert second > first
    assert terms("REFDESK_RETENTION_S b2 Pumping") == {"refde", "reten", "s", "b2", "pumpi"}


def test_numbered_headings_in_a_row_lead_to_what_follows() -> None:
    (found,) = split(["2 Structure of a pump\n\n2.1 Introduction\n\nThe aim of this chapter is a tour of the pump."])
    assert (found.text, found.lead) == (
        "The aim of this chapter is a tour of the pump.",
        "2 Structure of a pump 2.1 Introduction",
    )
