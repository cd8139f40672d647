"""OpenAI's own client against a real server: streams, usage, citations, embeddings, errors, and clients that leave."""

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from models.fake import FakeEmbedder, WordTokenizer
from tests.desks import GUIDE, LOCAL_TOKEN, running_server

ASKED: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "How often must the Kestrel pump be serviced?"},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=LOCAL_TOKEN, max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["docs"]
    assert client.models.retrieve("docs:default").owned_by == "refdesk"
    with pytest.raises(openai.NotFoundError, match="no model 'nx'"):
        client.models.retrieve("nx")


def test_an_answer_has_usage_annotations_and_citations(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="docs", messages=ASKED)
    message = completion.choices[0].message
    assert message.content
    assert "Kestrel pump" in message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
    assert message.annotations
    citations: list[dict[str, Any]] = completion.citations  # type: ignore[attr-defined]
    for annotation, citation in zip(message.annotations, citations, strict=True):
        place = annotation.url_citation
        assert message.content[place.start_index : place.end_index].strip()
        assert place.title == "Kestrel pump guide"
        assert GUIDE[citation["start"] : citation["end"]] == citation["quote"]
        words = httpx2.get(place.url, headers={"Authorization": f"Bearer {LOCAL_TOKEN}"}).json()["text"]
        assert words == citation["quote"]


def test_a_stream_joins_to_the_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="docs", messages=ASKED, temperature=0)
    stream = client.chat.completions.create(
        model="docs", messages=ASKED, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert len([delta for delta in deltas if delta.content]) > 3
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    final = chunks[-2]
    assert final.choices[0].finish_reason == "stop"
    assert final.citations == whole.citations  # type: ignore[attr-defined]
    annotations = whole.choices[0].message.annotations or []
    assert final.choices[0].delta.annotations == [a.model_dump() for a in annotations]  # type: ignore[attr-defined]


def test_a_length_limit_is_told(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="docs", messages=ASKED, max_completion_tokens=2)
    assert completion.choices[0].finish_reason == "length"


def test_extra_fields_filter(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="docs", messages=ASKED, extra_body={"filter": {"year": {"$exists": True}}}
    )
    assert completion.refdesk["refused"] is True  # type: ignore[attr-defined]


async def test_embeddings_as_floats_and_base64(client: openai.OpenAI) -> None:
    texts = ["The seal is green.", "𝔊rade-5 🛠️"]
    expected = [e.vector for e in await FakeEmbedder().embed_queries(texts)]
    as_base64 = client.embeddings.create(model="fake", input=texts)  # what the client asks for by default
    as_floats = client.embeddings.create(model="fake", input=texts, encoding_format="float")
    for reply in (as_base64, as_floats):
        assert [item.index for item in reply.data] == [0, 1]
        assert reply.usage.prompt_tokens == sum(map(WordTokenizer().count, texts)) == reply.usage.total_tokens
        for item, vector in zip(reply.data, expected, strict=True):
            np.testing.assert_allclose(np.array(item.embedding, np.float32), vector, atol=1e-6)


async def test_embeddings_of_token_ids_are_those_of_the_text(client: openai.OpenAI, url: str) -> None:
    text = "The seal is green."
    ids = WordTokenizer().encode_batch([text])[0].ids.tolist()
    of_text = client.embeddings.create(model="docs", input=text).data[0].embedding
    assert client.embeddings.create(model="docs", input=ids).data[0].embedding == of_text
    assert [e.embedding for e in client.embeddings.create(model="docs", input=[ids, ids]).data] == [of_text] * 2
    headers = {"Authorization": f"Bearer {LOCAL_TOKEN}"}
    body: dict[str, object] = {"model": "docs", "input": [text], "encoding_format": "base64"}
    async with httpx2.AsyncClient(headers=headers) as http:
        raw = (await http.post(f"{url}/v1/embeddings", json=body)).json()["data"][0]["embedding"]
        body["encoding_format"] = None
        floats = (await http.post(f"{url}/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    for given in (np.frombuffer(base64.b64decode(raw), "<f4"), np.array(floats, np.float32)):
        np.testing.assert_array_equal(given, np.array(of_text, np.float32))
    with pytest.raises(openai.BadRequestError, match="token id"):
        client.embeddings.create(model="docs", input=[2**31])


def test_errors_are_the_clients_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as bad_model:
        client.chat.completions.create(model="gpt-9", messages=ASKED)
    assert bad_model.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as bad_key:
        client.with_options(api_key="rd-wrong").models.list()
    assert bad_key.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model="docs", messages=ASKED, max_tokens=10**8)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as long_input:
        client.embeddings.create(model="docs", input="word " * 9000)
    assert long_input.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as malformed:
        client.chat.completions.create(model="docs", messages="hello")  # type: ignore[call-overload]
    assert malformed.value.param == "messages"


def test_a_stream_that_fails_before_its_first_word_has_a_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=ASKED, stream=True)


async def test_a_client_that_leaves_frees_its_place(url: str) -> None:
    """A stream broken off after its first event is no longer in flight a moment later."""
    body = {"model": "docs", "messages": ASKED, "stream": True}
    headers = {"Authorization": f"Bearer {LOCAL_TOKEN}"}
    for _ in range(5):
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            http.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
        ):
            async for _line in response.aiter_lines():
                break
    until = time.monotonic() + 3
    async with httpx2.AsyncClient() as http:
        while "refdesk_requests_in_flight 1.0" not in (await http.get(f"{url}/metrics")).text:  # the scrape itself
            assert time.monotonic() < until
            await asyncio.sleep(0.02)


async def test_a_large_upload_is_refused_while_it_is_sent(url: str) -> None:
    async def endless() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.txt"\r\n\r\n'
        for _ in range(2000):
            yield b"x" * 100_000

    headers = {"Authorization": "Bearer rd-wrong", "Content-Type": "multipart/form-data; boundary=b"}
    async with httpx2.AsyncClient(headers=headers) as http:
        try:
            response = await http.post(f"{url}/v1/documents", content=endless())
        except httpx2.TransportError:
            return  # the server has closed the connection before everything was sent
    assert response.status_code == 401
