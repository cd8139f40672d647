"""What every generator owes: limits, stop strings, deadline, real usage, a prompt stop, one answer for one prompt."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from models.base import (
    Delta,
    GenerationOptions,
    GenerationTimeoutError,
    Generator,
    InputTooLongError,
    Message,
    ModelUnavailableError,
    Prompt,
)
from models.extractive import ExtractiveGenerator
from models.fake import FakeEmbedder
from models.fake_generator import FakeGenerator
from models.refusal import REFUSAL, is_refusal
from models.remote import Remote
from models.remote_generator import RemoteGenerator
from tests.language_model import language_model
from tests.model_server import MODEL, model_server

PASSAGES = (
    "The Kestrel pump must be serviced every six months. Its oil is changed by the operator. Keep the log.",
    "The Falcon pump stands in hall 3.",
)
QUESTION = "How often must the Kestrel pump be serviced?"
GREEDY = GenerationOptions(max_tokens=12, temperature=0)

pytestmark = pytest.mark.anyio


def asked(passages: tuple[str, ...] = PASSAGES, question: str = QUESTION) -> Prompt:
    return Prompt((Message("user", "\n".join([*passages, question])),), question, passages)


@pytest.fixture(params=["genai", "extractive", "fake", "remote"])
async def generator(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Generator]:
    if request.param == "genai":
        yield language_model()
        return
    if request.param == "remote":
        with model_server() as server:
            remote = RemoteGenerator(Remote("generator 'parrot'", [server.url], hint="see generator_urls"), MODEL)
            await remote.learn()
            yield remote
            await remote.close()
        return
    made = ExtractiveGenerator(FakeEmbedder()) if request.param == "extractive" else FakeGenerator()
    yield made
    await made.close()


async def deltas(generator: Generator, prompt: Prompt, options: GenerationOptions) -> list[Delta]:
    return [delta async for delta in generator.generate(prompt, options)]


def text(parts: list[Delta]) -> str:
    return "".join(part.text for part in parts)


async def test_the_last_delta_alone_has_reason_and_usage(generator: Generator) -> None:
    parts = await deltas(generator, asked(), GREEDY)
    assert all(part.finish_reason is None and part.usage is None for part in parts[:-1])
    assert parts[-1].finish_reason in {"stop", "length"}
    usage = parts[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == await generator.count_prompt_tokens(asked().messages)
    assert 0 < usage.completion_tokens <= GREEDY.max_tokens
    assert text(parts)


async def test_temperature_0_repeats_itself_whatever_was_asked_between(generator: Generator) -> None:
    first = await deltas(generator, asked(), GREEDY)
    await deltas(generator, asked(question="Where does the Falcon pump stand?"), GREEDY)
    assert text(await deltas(generator, asked(), GREEDY)) == text(first)


async def test_max_tokens_ends_with_length(generator: Generator) -> None:
    parts = await deltas(generator, asked(), replace(GREEDY, max_tokens=3))
    assert parts[-1].finish_reason == "length"
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens <= 3
    whole = text(await deltas(generator, asked(), GREEDY))
    assert whole.startswith(text(parts).strip())


async def test_no_part_of_a_stop_string_is_sent(generator: Generator) -> None:
    options = replace(GREEDY, max_tokens=24)
    whole = text(await deltas(generator, asked(), options))
    middle = len(whole) // 2
    for stop in (whole[middle : middle + 6], whole[middle], whole[-3:]):
        parts = await deltas(generator, asked(), replace(options, stop=("never this", stop)))
        assert text(parts) == whole[: whole.index(stop)]
        assert parts[-1].finish_reason == "stop"


async def test_a_stop_string_that_does_not_come_costs_nothing(generator: Generator) -> None:
    whole = text(await deltas(generator, asked(), GREEDY))
    assert text(await deltas(generator, asked(), replace(GREEDY, stop=(whole[-2:] + "§",)))) == whole


async def test_more_than_the_context_is_refused(generator: Generator) -> None:
    with pytest.raises(InputTooLongError, match=str(generator.info.context_length)):
        await deltas(generator, asked(), replace(GREEDY, max_tokens=generator.info.context_length))


async def test_a_deadline_in_the_past_times_out(generator: Generator) -> None:
    with pytest.raises(GenerationTimeoutError, match="generation_timeout_s"):
        await deltas(generator, asked(), replace(GREEDY, timeout_s=0))


async def test_closing_the_iterator_leaves_a_generator_that_works(generator: Generator) -> None:
    async with aclosing(generator.generate(asked(), replace(GREEDY, max_tokens=64))) as parts:
        assert (await anext(parts)).text
    assert text(await deltas(generator, asked(), GREEDY))


async def test_answers_asked_for_at_once_are_those_asked_for_alone(generator: Generator) -> None:
    prompts = [asked(question=q) for q in (QUESTION, "Where does the Falcon pump stand?", "Who changes the oil?")]
    alone = [text(await deltas(generator, prompt, GREEDY)) for prompt in prompts]
    together = await asyncio.gather(*(deltas(generator, prompt, GREEDY) for prompt in prompts))
    assert [text(parts) for parts in together] == alone


async def test_counts(generator: Generator) -> None:
    assert await generator.count_tokens([]) == []
    one, empty, two = await generator.count_tokens(["the", "", "the the"])
    assert (one, empty) == (1, 0)
    assert two >= 2
    assert await generator.count_prompt_tokens(asked().messages) >= (await generator.count_tokens([QUESTION]))[0]


async def test_a_closed_generator_says_so() -> None:
    remote = RemoteGenerator(Remote("generator 'm'", ["http://127.0.0.1:1"], hint="see generator_urls"), "m")
    for generator in (ExtractiveGenerator(FakeEmbedder()), FakeGenerator(), remote):
        await generator.close()
        with pytest.raises(ModelUnavailableError, match="closed"):
            await deltas(generator, asked(), GREEDY)


async def test_without_passages_the_makers_of_quotes_refuse() -> None:
    for generator in (ExtractiveGenerator(FakeEmbedder()), FakeGenerator()):
        assert text(await deltas(generator, asked(()), GREEDY)) == REFUSAL
        assert is_refusal(REFUSAL)


async def test_the_fake_quotes_the_first_sentence_and_times_out_when_slow() -> None:
    answer = text(await deltas(FakeGenerator(), asked(), GREEDY))
    assert answer == "The Kestrel pump must be serviced every six months. [1]"
    started = time.monotonic()
    with pytest.raises(GenerationTimeoutError):
        await deltas(FakeGenerator(delay_s=0.05), asked(), replace(GREEDY, timeout_s=0.12))
    assert time.monotonic() - started < 1
