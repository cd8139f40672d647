"""Chat completions over HTTP: streams, citations, sources for Open WebUI, refusals with a status; exact offsets."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.build import build
from server.schemas.chat import ChatBody, Scope, to_request
from server.settings import Settings
from tests.desks import GUIDE, QUESTION, open_http, refused, search, upload


async def test_a_stream_is_the_whole_answer_in_pieces(http: httpx2.AsyncClient) -> None:
    body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    whole = (await http.post("/v1/chat/completions", json=body)).json()
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "own" not in response.headers["server-timing"]
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    message = whole["choices"][0]["message"]
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]
    assert deltas[-1]["annotations"] == message["annotations"]
    assert chunks[-2]["citations"] == whole["citations"]
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_citations_are_slices_of_the_text_and_verify(http: httpx2.AsyncClient) -> None:
    body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    text = answer["choices"][0]["message"]["content"]
    assert answer["citations"]
    for citation, annotation in zip(answer["citations"], answer["choices"][0]["message"]["annotations"], strict=True):
        assert GUIDE[citation["start"] : citation["end"]] == citation["quote"]
        assert text[citation["answer_start"] : citation["answer_end"]].strip()
        verdict = await http.post("/v1/citations/verify", json=citation)
        assert verdict.json()["status"] == "verified"
        link = annotation["url_citation"]["url"]
        assert (await http.get(link)).json()["text"] == citation["quote"]
    assert answer["refdesk"]["refused"] is False
    assert all({"start", "end", "supported"} <= set(s) for s in answer["refdesk"]["sentences"])


async def test_open_webui_gets_sources_only_if_it_asks(http: httpx2.AsyncClient) -> None:
    body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    plain = await http.post("/v1/chat/completions", json=body)
    assert '"event"' not in plain.text
    asked = await http.post("/v1/chat/completions", json=body, headers={"X-Client": "open-webui"})
    lines = [json.loads(line[6:]) for line in asked.text.split("\n\n") if line.startswith("data: {")]
    events = [line["event"] for line in lines if "event" in line]
    final = next(line for line in lines if "citations" in line)
    assert len(events) == max(citation["number"] for citation in final["citations"])
    for citation in final["citations"]:
        data = events[citation["number"] - 1]["data"]
        assert citation["quote"] in data["document"]
        assert len(data["document"]) == len(data["metadata"])
    assert len({event["data"]["metadata"][0]["source"] for event in events}) == len(events)


async def test_with_the_real_models_offsets_are_exact_among_astral_characters(tmp_path: Path) -> None:
    text = (
        "# 𝔎estrel 🦅\n\n"
        + "🛠️ 𝕎𝕖 keep it dry. " * 5
        + "The Kestrel pump must be serviced every six months. 👩‍👩‍👧 End.\n"
    )
    desk = await build(Settings(data_dir=tmp_path), command="a test")
    try:
        async with open_http(desk) as http:
            await upload(http, {"𝔎🦅.md": text})
            (hit, *_) = (await search(http))["hits"]
            assert (hit["uri"], text[hit["start"] : hit["end"]]) == ("𝔎🦅.md", hit["text"])
            body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
            reply = (await http.post("/v1/chat/completions", json=body)).json()
            (citation,) = reply["citations"]
            assert text[citation["start"] : citation["end"]] == citation["quote"]
            assert citation["quote"] == "The Kestrel pump must be serviced every six months."
            answer = reply["choices"][0]["message"]["content"]
            assert citation["quote"] in answer[citation["answer_start"] : citation["answer_end"]]
            vectors = await http.post("/v1/embeddings", json={"model": "all-MiniLM-L6-v2", "input": [[101, 7592, 102]]})
            assert len(vectors.json()["data"][0]["embedding"]) == 384
            status, error = await refused(http, "POST", "/v1/embeddings", json={"model": "docs", "input": [[99_999]]})
            assert (status, error["param"]) == (400, "input")
    finally:
        await desk.close()


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "nx"}, 404, None),
        ({"model": "docs:nx"}, 404, None),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "question"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0"),
        ({"n": 2}, 400, "n"),
        ({"temperature": 3}, 400, "temperature"),
        ({"max_tokens": 10**9}, 400, None),
        ({"filter": {"$foo": 1}}, 400, "filter"),
    ],
)
async def test_a_wrong_chat_is_answered_with_a_status_even_if_streamed(
    http: httpx2.AsyncClient, change: dict[str, Any], status: int, param: str | None
) -> None:
    body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]} | change
    for stream in (False, True):
        got, error = await refused(http, "POST", "/v1/chat/completions", json=body | {"stream": stream})
        assert (got, error["param"]) == (status, param)


async def test_unknown_fields_and_text_parts_are_taken(http: httpx2.AsyncClient) -> None:
    parts = [{"type": "text", "text": "How often must the Kestrel pump"}, {"type": "text", "text": "be serviced?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "x"}]
    body = {"model": "docs:default", "messages": messages, "logprobs": False, "tools": [], "metadata": {"a": 1}}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text


async def test_a_history_with_tools_and_a_refusal_is_taken(http: httpx2.AsyncClient) -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": "Rain."},
        {"role": "function", "name": "f", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot say."}]},
        {"role": "user", "content": QUESTION},
    ]
    body = {"model": "docs", "messages": messages, "stream_options": {"include_usage": None}}
    reply = await http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["citations"]
    turns = to_request(ChatBody.model_validate(body), Scope("docs", "default", None, 10)).messages
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "What is the weather?"),
        ("assistant", "I cannot say."),
        ("user", QUESTION),
    ]


@pytest.mark.parametrize(("stream", "streamed"), [({}, False), ({"stream": None}, False), ({"stream": True}, True)])
def test_an_answer_is_read_as_it_is_made_only_where_it_was_asked_to(stream: dict[str, bool], streamed: bool) -> None:
    body = ChatBody.model_validate({"model": "docs", "messages": [{"role": "user", "content": QUESTION}], **stream})
    assert to_request(body, Scope("docs", "default", None, 10)).streamed is streamed
