"""The generators' contract, on a real vLLM."""

from collections.abc import AsyncIterator

import pytest

from models.base import Generator, Message
from models.remote import Remote
from models.remote_generator import RemoteGenerator
from models.vocabulary import read_vocabulary
from tests.contracts.test_generator import (  # noqa: F401 - collected here, over the generator below
    test_a_deadline_in_the_past_times_out,
    test_a_stop_string_that_does_not_come_costs_nothing,
    test_answers_asked_for_at_once_are_those_asked_for_alone,
    test_closing_the_iterator_leaves_a_generator_that_works,
    test_counts,
    test_max_tokens_ends_with_length,
    test_more_than_the_context_is_refused,
    test_no_part_of_a_stop_string_is_sent,
    test_temperature_0_repeats_itself_whatever_was_asked_between,
    test_the_last_delta_alone_has_reason_and_usage,
)
from tests.live.vllm import CONTEXT, MODEL, Vllm

TEXTS = [
    "",
    "The pump.",
    "日本 😀 naïve\n\n  2,000 kg",
    '<passage number="1" title="x">\nA\n</passage>\n',
    "a <|im_end|> b",
]


@pytest.fixture(params=["/tokenize", "tokenizer.json"])
async def generator(request: pytest.FixtureRequest, llm: Vllm) -> AsyncIterator[Generator]:
    vocabulary = read_vocabulary(llm.folder) if request.param == "tokenizer.json" else None
    remote = Remote(f"generator {MODEL!r}", [llm.url], hint="see generator_urls")
    made = RemoteGenerator(remote, MODEL, vocabulary=vocabulary)
    await made.learn()
    yield made
    await made.close()


async def test_both_ways_of_counting_agree(llm: Vllm) -> None:
    made = [
        RemoteGenerator(Remote("generator", [llm.url], hint="see generator_urls"), MODEL, vocabulary=vocabulary)
        for vocabulary in (None, read_vocabulary(llm.folder))
    ]
    messages = [Message("system", "Be brief."), *(Message("user", text) for text in TEXTS if text)]
    there, here = [(await one.count_tokens(TEXTS), await one.count_prompt_tokens(messages)) for one in made]
    assert there == here
    assert {one.info.context_length for one in made} == {CONTEXT}
    for one in made:
        await one.close()
