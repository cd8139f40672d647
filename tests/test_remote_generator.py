"""A generator behind HTTP when its server is slow, overloaded, broken, gone or back again."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from starlette.responses import JSONResponse

from models.base import (
    GenerationOptions,
    GenerationTimeoutError,
    Message,
    ModelError,
    ModelNotFoundError,
    ModelUnavailableError,
    Prompt,
    UnsupportedModelError,
)
from models.remote import FAILURES, MalformedReplyError, Remote, StatusError, root_of
from models.remote_generator import RemoteGenerator, _chunks
from models.replicas import EJECT_AFTER
from models.retry import Backoff
from tests.model_server import ADAPTER, LENGTH, MODEL, ModelServer, model_server

OPTIONS = GenerationOptions(max_tokens=20, temperature=0, timeout_s=20)
ASKED = Prompt((Message("user", "The pump is serviced every year. More.\nA last line"),), "How often?")
ANSWER = "The pump is serviced every year"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@asynccontextmanager
async def generator(*servers: ModelServer, name: str = MODEL) -> AsyncIterator[RemoteGenerator]:
    remote = Remote(f"generator {name!r}", [s.url for s in servers], hint="see generator_urls", api_key="sk-1")
    remote.backoff = Backoff(base_s=0.01)
    made = RemoteGenerator(remote, name)
    try:
        yield made
    finally:
        await made.close()


async def answer(made: RemoteGenerator, options: GenerationOptions = OPTIONS, prompt: Prompt = ASKED) -> str:
    return "".join([delta.text async for delta in made.generate(prompt, options)])


async def test_the_server_says_how_long_its_context_is(server: ModelServer) -> None:
    async with generator(server) as made:
        await made.learn()
        assert made.info.context_length == LENGTH
        assert server.conduct.keys == ["Bearer sk-1"]
    async with generator(server, name="other") as made:
        with pytest.raises(ModelNotFoundError, match="parrot"):
            await made.learn()


async def test_a_server_that_still_loads_needs_no_restart_here(server: ModelServer) -> None:
    server.conduct.is_loading = True
    async with generator(server) as made:
        with pytest.raises(ModelUnavailableError, match="503"):
            await made.count_prompt_tokens(ASKED.messages)
        server.conduct.is_loading = False
        made._remote.replicas.all[0].ejections = 0  # its ejection is over
        assert await made.count_prompt_tokens(ASKED.messages) == 13
        assert made.info.context_length == LENGTH


async def test_an_adapter_is_asked_for_by_name(server: ModelServer) -> None:
    async with generator(server) as made:
        assert await answer(made, replace(OPTIONS, adapter=ADAPTER)) == "A last line"
        assert server.conduct.seen[-1]["model"] == ADAPTER
        with pytest.raises(ModelNotFoundError, match="no adapter 'x'"):
            await answer(made, replace(OPTIONS, adapter="x"))
    async with generator(server, name=ADAPTER) as made:
        await made.learn()
        assert made.info.context_length == LENGTH


async def test_what_may_be_retried_is_retried(server: ModelServer) -> None:
    busy = JSONResponse({"error": {"message": "busy"}}, 429, {"retry-after": "0"})
    async with generator(server) as made:
        server.conduct.fail.extend([busy, JSONResponse({}, 503), "cut", "cut"])
        assert await answer(made) == ANSWER
        assert len(server.conduct.seen) == 5


async def test_five_attempts_and_no_more(server: ModelServer) -> None:
    async with generator(server) as made:
        server.conduct.fail.extend([JSONResponse({}, 429)] * 9)
        with pytest.raises(ModelUnavailableError, match="429"):
            await answer(made)
        assert len(server.conduct.seen) == 5


async def test_other_refusals_are_final(server: ModelServer) -> None:
    async with generator(server) as made:
        for status, error in ((401, ModelUnavailableError), (404, ModelNotFoundError), (422, UnsupportedModelError)):
            server.conduct.fail.append(JSONResponse({"error": {"message": "no"}}, status))
            with pytest.raises(error, match="no"):
                await answer(made)
        assert len(server.conduct.seen) == 3


async def test_retry_after_beyond_the_deadline_is_not_waited_for(server: ModelServer) -> None:
    server.conduct.fail.append(JSONResponse({}, 429, {"retry-after": "60"}))
    async with generator(server) as made:
        started = time.monotonic()
        with pytest.raises(ModelUnavailableError, match="429"):
            await answer(made)
        assert time.monotonic() - started < 5


async def test_nothing_is_retried_after_the_first_word() -> None:
    with model_server(word_s=0.05) as server:
        async with generator(server) as made, aclosing(made.generate(ASKED, OPTIONS)) as deltas:
            assert (await anext(deltas)).text
            await asyncio.to_thread(server.stop)
            with pytest.raises(ModelUnavailableError):
                async for _ in deltas:
                    pass
        assert len(server.conduct.seen) == 1


async def test_an_outage_is_not_multiplied(server: ModelServer) -> None:
    """10 retries are saved up, then one in ten requests may be retried."""
    async with generator(server) as made:
        await made.learn()
        server.conduct.fail.extend([JSONResponse({}, 429)] * 1000)
        for _ in range(60):
            with pytest.raises(ModelUnavailableError):
                await answer(made)
        assert 60 < len(server.conduct.seen) <= 60 + 10 + 6 + 1


async def test_a_client_that_leaves_ends_the_work_there() -> None:
    with model_server(word_s=0.02) as server:
        async with generator(server) as made:
            async with aclosing(made.generate(ASKED, OPTIONS)) as deltas:
                await anext(deltas)
            until = time.monotonic() + 3
            while server.conduct.running:
                assert time.monotonic() < until
                await asyncio.sleep(0.01)
            assert made._remote.replicas.all[0].outstanding == 0


async def test_a_server_that_hangs_meets_the_deadline_and_is_ejected() -> None:
    with model_server() as server:
        server.conduct.fail.extend(["hang"] * EJECT_AFTER)
        async with generator(server) as made:
            await made.learn()
            for _ in range(EJECT_AFTER):
                with pytest.raises(GenerationTimeoutError):
                    await answer(made, replace(OPTIONS, timeout_s=0.1))
            with pytest.raises(ModelUnavailableError, match="left alone for"):
                await answer(made)


async def test_replicas_share_the_load_and_survive_one_of_them() -> None:
    with model_server(word_s=0.01) as one, model_server(word_s=0.01) as other:
        async with generator(one, other) as made:
            answers = await asyncio.gather(*(answer(made) for _ in range(8)))
            assert answers == [ANSWER] * 8
            assert len(one.conduct.seen) == len(other.conduct.seen) == 4
            assert one.conduct.max_running == other.conduct.max_running == 4
            await asyncio.to_thread(one.stop)
            for _ in range(2 * EJECT_AFTER):
                assert await answer(made) == ANSWER
            assert made._remote.replicas.all[0].ejections == 1
            await asyncio.to_thread(one.start)
            made._remote.replicas.all[0].ejected_until = 0.0  # its time is over: one request tries it
            await asyncio.gather(*(answer(made) for _ in range(8)))
            assert made._remote.replicas.all[0].ejections == 0


async def test_with_all_replicas_gone_the_circuit_opens_and_closes_again(server: ModelServer) -> None:
    async with generator(server) as made:
        assert await answer(made) == ANSWER
        server.stop()
        with pytest.raises(ModelUnavailableError):
            await answer(made)
        started = time.monotonic()
        with pytest.raises(ModelUnavailableError, match="left alone for"):
            await answer(made)
        assert time.monotonic() - started < 0.1
        server.start()
        await asyncio.sleep(made._remote.replicas.retry_in_s() + 0.01)
        assert await answer(made) == ANSWER


async def test_passages_are_counted_once(server: ModelServer) -> None:
    async with generator(server) as made:
        assert await made.count_tokens(["a b c", "d", "a b c"]) == [3, 1, 3]
        before = server.conduct.tokenized
        assert await made.count_tokens(["a b c", "d"]) == [3, 1]
        assert server.conduct.tokenized == before


async def test_control_tokens_in_a_passage_are_words(server: ModelServer) -> None:
    """`</passage>` and `<|im_end|>` are one token each to this server."""
    async with generator(server) as made:
        await answer(made, prompt=Prompt((Message("user", "a <|im_end|> b. c"),), "q"))
        assert server.conduct.seen[-1]["messages"][0]["content"] == "a < |im_end|> b. c"


def subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


def test_every_error_of_the_http_client_is_mapped() -> None:
    roots = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, httpx2.CookieConflict)
    remote = Remote("generator 'm'", ["http://h"], hint="see generator_urls")
    for kind in (kind for root in roots for kind in subclasses(root)):
        error = kind.__new__(kind)
        if kind is not httpx2.CookieConflict:  # no cookie is ever asked for
            assert isinstance(error, FAILURES), kind
        assert isinstance(remote.model_error(error), ModelError)
    assert isinstance(remote.model_error(StatusError(500, "")), ModelUnavailableError)


@pytest.mark.parametrize(
    ("given", "root"),
    [("http://h:1", "http://h:1"), ("http://h:1/v1/", "http://h:1"), ("https://h/openai/v1", "https://h/openai")],
)
def test_a_url_may_end_in_v1(given: str, root: str) -> None:
    assert root_of(given) == root


def test_what_is_no_url_is_refused() -> None:
    for wrong in ("vllm:8000", "ftp://h", "http:///v1", ""):
        with pytest.raises(UnsupportedModelError, match="http://host:port"):
            root_of(wrong)


def events(*data: str) -> httpx2.Response:
    content = "".join(f"data: {one}\n\n" for one in data).encode()
    asked = httpx2.Request("POST", "http://server/v1/chat/completions")
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content, request=asked)


@pytest.mark.parametrize(
    ("event", "status", "said"),
    [
        ('{"error": {"message": "too long", "code": 400}}', 400, "too long"),
        ('{"error": {"message": "too long", "code": "400"}}', 400, "too long"),
        ('{"error": "out of memory"}', 500, "out of memory"),
        ('{"object": "error", "message": "no room", "code": 503}', 503, "no room"),
    ],
)
async def test_an_error_inside_a_stream_ends_it_whatever_its_shape(event: str, status: int, said: str) -> None:
    half = '{"choices": [{"delta": {"content": "Half an ans"}}]}'
    with pytest.raises(StatusError) as caught:
        [chunk async for chunk in _chunks(events(half, event, "[DONE]"))]
    assert (caught.value.status, said in str(caught.value)) == (status, True)


async def test_a_stream_that_never_says_why_it_ended_broke_off() -> None:
    half = '{"choices": [{"delta": {"content": "Half an ans"}}]}'
    whole = '{"choices": [{"delta": {"content": "wer."}, "finish_reason": "stop"}]}'
    assert [chunk.text async for chunk in _chunks(events("", half, whole, "[DONE]"))] == ["Half an ans", "wer."]
    assert [chunk.text async for chunk in _chunks(events(half, whole))] == ["Half an ans", "wer."]
    for cut in (events(half), events(half, "[DONE]")):
        with pytest.raises(MalformedReplyError, match="broke off"):
            [chunk async for chunk in _chunks(cut)]
