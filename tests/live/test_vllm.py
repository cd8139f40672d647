"""Answers through a real vLLM: streamed with citations, prefixes cached, leaving clients, and every way to fail."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import orjson

from server.build import Desk
from tests.desks import GUIDE, LOCAL_TOKEN, NOTES, QUESTION, open_desk, open_http, running_server, upload
from tests.live.proxy import Proxy
from tests.live.vllm import MODEL, Vllm

EMBEDDER = "all-MiniLM-L6-v2"
SETTLED_S = 60.0
BODY: dict[str, Any] = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40}


@asynccontextmanager
async def desk_over(data_dir: Path, *urls: str, **settings: Any) -> AsyncIterator[tuple[Desk, httpx2.AsyncClient]]:
    given = {"embedder": EMBEDDER, "generator": MODEL, "generator_urls": ",".join(urls), **settings}
    async with open_desk(data_dir, **given) as desk, open_http(desk) as http:
        await upload(http, {"guide.md": GUIDE, "notes.md": NOTES})
        yield desk, http


async def ask(http: httpx2.AsyncClient, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    response = await http.post("/v1/chat/completions", json={**BODY, "messages": messages, **fields}, timeout=120)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def until(condition: Callable[[], bool], seconds: float = SETTLED_S) -> None:
    """Wait until `condition` holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.2)


def test_openais_client_streams_an_answer_with_citations(llm: Vllm, tmp_path: Path) -> None:
    given = {"embedder": EMBEDDER, "generator": MODEL, "generator_urls": llm.url}
    with (
        running_server(tmp_path, **given) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=LOCAL_TOKEN, max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model="docs",
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=60,
        )
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    final = chunks[-2]
    assert "six months" in text
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 3
    assert final.refdesk["generator"] == MODEL  # type: ignore[attr-defined]
    assert final.refdesk["degraded"] == []  # type: ignore[attr-defined]
    citations: list[dict[str, Any]] = final.citations  # type: ignore[attr-defined]
    assert citations
    assert all(GUIDE[one["start"] : one["end"]] == one["quote"] for one in citations)
    assert chunks[-1].usage
    assert chunks[-1].usage.prompt_tokens > 100


async def test_the_rules_before_every_question_are_cached(llm: Vllm, tmp_path: Path) -> None:
    """What is the same in every prompt comes first: the second question's prompt is read from the cache that far."""
    async with desk_over(tmp_path, llm.url) as (_, http):
        await ask(http, QUESTION, max_tokens=4)
        hits, queries = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
        before = llm.metric(hits), llm.metric(queries)
        await ask(http, "When does the harbour office open?", max_tokens=4)
        found, asked = llm.metric(hits) - before[0], llm.metric(queries) - before[1]
    assert 0 < found <= asked
    assert found >= 100, f"{found} of {asked} prompt tokens came from the cache"


async def test_a_client_that_leaves_stops_the_generation_in_vllm(llm: Vllm, tmp_path: Path) -> None:
    with running_server(tmp_path, embedder=EMBEDDER, generator=MODEL, generator_urls=llm.url) as url:
        headers = {"Authorization": f"Bearer {LOCAL_TOKEN}"}
        body = {**BODY, "stream": True, "max_tokens": 3000, "temperature": 1.5}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            http.stream("POST", f"{url}/v1/chat/completions", content=orjson.dumps(body)) as response,
        ):
            count = 0
            async for line in response.aiter_lines():
                count += line.startswith("data: ")
                if count > 2:
                    break
            assert llm.metric("vllm:num_requests_running") == 1
        await until(lambda: llm.metric("vllm:num_requests_running") == 0, 5)


async def test_a_slow_vllm_answers_late_and_a_slower_one_not_at_all(llm: Vllm, tmp_path: Path) -> None:
    with Proxy.before(llm.url) as slow:
        slow.delay_s = 0.3
        async with desk_over(tmp_path, slow.url) as (_, http):
            assert (await ask(http, max_tokens=8))["refdesk"]["generator"] == MODEL
        slow.delay_s = 6.0  # a server has 5 s to say how long its context is
        async with desk_over(tmp_path, slow.url) as (_, http):
            reply = await ask(http)
            assert reply["refdesk"]["generator"] == "extractive"
            assert "did not answer in time" in " ".join(reply["refdesk"]["degraded"])
            assert "six months" in reply["choices"][0]["message"]["content"]


async def test_a_refusing_vllm_leaves_an_extractive_answer_and_is_found_again(llm: Vllm, tmp_path: Path) -> None:
    with Proxy.before(llm.url) as behind:
        behind.refuses = True
        async with desk_over(tmp_path, behind.url) as (_, http):
            reply = await ask(http)
            assert reply["refdesk"]["generator"] == "extractive"
            assert reply["refdesk"]["degraded"]
            behind.refuses = False
            await answered_by_vllm(http)


async def answered_by_vllm(http: httpx2.AsyncClient, seconds: float = SETTLED_S) -> None:
    """Ask until vLLM answers: its ejection has to end first."""
    end = time.monotonic() + seconds
    while (await ask(http, max_tokens=4))["refdesk"]["generator"] != MODEL:
        assert time.monotonic() < end, "vLLM is not asked any more"
        await asyncio.sleep(0.5)


async def test_a_vllm_that_hangs_meets_the_deadline_and_is_found_again(llm: Vllm, tmp_path: Path) -> None:
    async with desk_over(tmp_path, llm.url, generation_timeout_s=10.0) as (_, http):
        await answered_by_vllm(http)
        llm.server.pause()
        try:
            reply = await ask(http, "When does the harbour office open?")
            assert reply["refdesk"]["generator"] == "extractive"
        finally:
            llm.server.resume()
    async with desk_over(tmp_path, llm.url) as (_, http):
        await answered_by_vllm(http)


async def test_a_dead_replica_costs_nobody_an_answer(llm: Vllm, tmp_path: Path) -> None:
    async with desk_over(tmp_path, "http://127.0.0.1:9", llm.url) as (_, http):
        replies = await asyncio.gather(*(ask(http, max_tokens=4) for _ in range(6)))
        assert {reply["refdesk"]["generator"] for reply in replies} == {MODEL}


async def test_a_vllm_killed_under_load_is_missed_and_found_again(llm: Vllm, tmp_path: Path) -> None:
    """Every question is answered; by vLLM before it is killed and after it is back, without a restart here."""
    generators: list[str] = []

    async def load(http: httpx2.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            generators.append((await ask(http, max_tokens=12))["refdesk"]["generator"])
            await asyncio.sleep(1.0)  # extractive answers take a core, which vLLM's start needs too

    async with desk_over(tmp_path, llm.url) as (_, http):
        stop = asyncio.Event()
        clients = [asyncio.create_task(load(http, stop)) for _ in range(3)]
        await until(lambda: generators.count(MODEL) >= 6)
        await asyncio.to_thread(llm.server.kill)
        await until(lambda: generators[-3:] == ["extractive"] * 3)
        await asyncio.to_thread(llm.server.start)
        await until(lambda: generators[-3:] == [MODEL] * 3)
        stop.set()
        await asyncio.gather(*clients)
    assert set(generators) == {MODEL, "extractive"}
