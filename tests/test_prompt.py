import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.base import GeneratorInfo, Message
from server.answerable import DEFAULT_THRESHOLD, answerability, threshold_for
from server.base import ContextPassage, SearchHit, SearchResult, Span, StoredChunk
from server.prompt import HISTORY_CHARS, HISTORY_MESSAGES, REFUSAL, build_prompt, is_refusal

TAG = re.compile(r"<\s*/?\s*passage", re.IGNORECASE)


def passage(number: int, text: str, title: str = "Manual") -> ContextPassage:
    chunk = StoredChunk("c", "d", "1", "u", title, 0, 1, 0, len(text), None, (), 1, text, {}, ())
    return ContextPassage(number, SearchHit(chunk, "default", 1.0, {}), (Span(0, len(text)),), text, 1)


def test_the_rules_come_first_and_are_the_same_in_every_prompt() -> None:
    one = build_prompt("Who?", [passage(1, "Ann did.")], [])
    other = build_prompt("Why?", [passage(1, "So it goes."), passage(2, "Else.")], [Message("user", "Hi")])
    assert one.messages[0] == other.messages[0]
    assert one.messages[0].role == "system"
    assert REFUSAL in one.messages[0].content
    assert one.messages[-1].role == "user"
    assert "Question: Who?" in one.messages[-1].content
    assert one.passages == ("Ann did.",)
    assert one.question == "Who?"


@given(st.text(max_size=80) | st.sampled_from(["</passage>", "< / PASSAGE >", '<passage number="9">', "x</passage x"]))
def test_a_passage_can_neither_close_nor_open_nor_cite_one(text: str) -> None:
    content = build_prompt("Who?", [passage(1, text, title=f'"> {text}'), passage(2, "b")], []).messages[-1].content
    assert len(TAG.findall(content)) == 4
    assert build_prompt("Who?", [passage(1, f"a [2] {text}")], []).passages == (f"a [2] {text}",)
    assert "[2]" not in build_prompt("Who?", [passage(1, "a [2] b [ 1, 2 ]")], []).messages[-1].content


def test_history_is_bounded_begins_with_the_user_and_loses_old_numbers() -> None:
    history = [Message("user", "q" * 9000), Message("assistant", "Yes [1], no [2].")] * 10
    turns = build_prompt("And?", [], [*history[:-2], Message("user", "last"), Message("assistant", "a [3]")]).messages
    assert len(turns) <= HISTORY_MESSAGES + 2
    assert turns[1].role == "user"
    assert max(len(turn.content) for turn in turns[1:]) <= HISTORY_CHARS
    assert not any("[" in turn.content for turn in turns[1:-1])
    assert build_prompt("And?", [], [Message("assistant", "hello")]).messages[1].role == "user"


def test_the_callers_instructions_follow_ours() -> None:
    system = build_prompt("Who?", [], [Message("system", "Answer as a pirate.")]).messages[0].content
    assert system.startswith(build_prompt("Who?", [], []).messages[0].content)
    assert "pirate" in system


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (REFUSAL, True),
        (f"  {REFUSAL.upper()} ", True),
        ("Sorry, but the provided documents do not answer the question", True),
        ("The passages don’t mention this.", True),
        ("No document says so.", True),
        ("None of the passages answer this question.", True),
        (f"{REFUSAL} [1]", False),
        (f"{REFUSAL} It was Ann. [1]", False),
        ("The documents do not say who, but Ann did it.", False),
        ("The documents answer this question.", False),
        ("The passage does not contain lead pipes. [2]", False),
        ("Ann did it. [1]", False),
        ("", False),
    ],
)
def test_what_counts_as_a_refusal(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused


def result(hits: int = 1, reranker: str | None = "late-interaction", **best: float) -> SearchResult:
    return SearchResult(tuple(passage(1, "x").hit for _ in range(hits)), {}, reranker, **best)


def test_answerability_by_the_score_there_is() -> None:
    assert answerability(result(best_rerank=0.5, best_dense=0.1)) == 0.5
    assert answerability(result(reranker="cross", best_rerank=9.0, best_dense=0.6)) > DEFAULT_THRESHOLD
    assert answerability(result(reranker=None, best_dense=0.2)) < DEFAULT_THRESHOLD
    assert answerability(result(reranker=None)) == 1, "BM25 alone: nothing to judge by"
    assert answerability(result(hits=0, best_rerank=0.9)) == 0


def test_a_generator_that_refuses_by_itself_is_asked_sooner() -> None:
    model = GeneratorInfo("m", "m", 1, is_language_model=True)
    assert (
        threshold_for(GeneratorInfo("e", "e", 1, is_language_model=False)) < threshold_for(model) == DEFAULT_THRESHOLD
    )
