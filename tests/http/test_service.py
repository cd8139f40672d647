"""Embeddings, health, metrics, the door, faults of ours."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.auth import Claims, Keys
from server.build import Desk
from server.cli_serve import JsonLog
from tests.desks import GUIDE, QUESTION, open_desk, open_http, refused, search, upload


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "at least 1 character"),
        ([], "at least 1 item"),
        (["a", ""], "at least 1 character, not ''"),
        (["a"] * 2049, "at most 2048 items"),
        ([[]], "at least 1 item"),
        ([1.5], "valid integer, not 1.5"),
        ([-1], "greater than or equal to 0, not -1"),
        ([1, "a"], "valid integer, not 'a'"),
        ({}, "valid string"),
    ],
)
async def test_a_wrong_input_is_refused_and_the_message_says_why(
    http: httpx2.AsyncClient, given: object, words: str
) -> None:
    status, error = await refused(http, "POST", "/v1/embeddings", json={"model": "docs", "input": given})
    assert (status, error["param"]) == (400, "input")
    assert words in error["message"]


async def test_dimensions_are_the_models(http: httpx2.AsyncClient) -> None:
    body = {"model": "docs", "input": "x", "dimensions": 3}
    assert (await refused(http, "POST", "/v1/embeddings", json=body))[1]["param"] == "dimensions"


async def test_health_readiness_and_metrics_are_open(desk: Desk) -> None:
    async with open_http(desk, key=None) as http:
        assert (await http.get("/health")).json()["status"] == "ok"
        assert (await http.get("/ready")).json()["models"]["embedder"] == "fake"
        assert (await http.get("/metrics")).status_code == 200


async def test_openapi_lists_the_errors_of_the_table(http: httpx2.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()
    responses = schema["paths"]["/v1/search"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "413", "429", "500", "503"} <= set(responses)
    assert "invalid_filter" in responses["400"]["description"]
    assert (await http.get("/docs")).status_code == 404  # the page would load from a CDN


def samples_of(scrape: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }


async def test_metrics_count_what_replies_did_without_and_what_ingestions_took(tmp_path: Path) -> None:
    away = {"generator": "llm", "generator_urls": ["http://127.0.0.1:9"], "generator_context_length": 4096}
    async with open_desk(tmp_path, **away) as desk, open_http(desk) as http:
        receipt = await upload(http, {"guide.md": GUIDE})
        body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
        assert (await http.post("/v1/chat/completions", json=body)).json()["refdesk"]["degraded"]
        await desk.pipeline.models.embedder.close()
        for question in ("one", "two"):
            assert (await search(http, f"the Kestrel pump {question}"))["degraded"]
        samples = samples_of((await http.get("/metrics")).text)
    degraded = {part[0]: count for (name, *part), count in samples.items() if name == "refdesk_degraded_total"}
    assert degraded == {"generator": 1, "embedding": 2, "reranker": 2}
    assert samples["refdesk_ingestion_seconds_total", "embed"] == receipt["stages_s"]["embed"] > 0


async def test_metrics_count_requests_stages_errors_and_tokens(desk: Desk) -> None:
    async with open_http(desk) as http:
        await search(http, "a question for the metrics")
        await search(http, "a question for the metrics")
        await refused(http, "POST", "/v1/search", json={"question": "x", "filter": {"a": {"$near": 1}}})
        body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
        await http.post("/v1/chat/completions", json=body)
        scrape = (await http.get("/metrics")).text
    samples = samples_of(scrape)
    assert samples["refdesk_requests_total", "/v1/search", "200", "POST"] == 2
    assert samples["refdesk_requests_total", "/v1/search", "400", "POST"] == 1
    assert samples["refdesk_errors_total", "FilterError"] == 1
    assert samples["refdesk_cache_total", "hit", "l1"] >= 1
    assert samples["refdesk_answers_total", "answered"] == 1
    assert samples["refdesk_tokens_total", "completion"] > 0
    assert samples["refdesk_stage_seconds_count", "dense"] >= 1
    assert samples["refdesk_own_seconds_count", "/v1/search"] == 2
    assert "question for the metrics" not in scrape


async def test_each_request_is_logged_without_what_was_asked(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "refdesk.requests")
    key, secret = await Keys(desk.catalog).add("logged", Claims())
    async with open_http(desk, key=secret) as http:
        found = await http.post("/v1/search", json={"question": "a secret matter", "namespace": "default"})
        await http.get("/v1/documents/doc_of_nobody")
        await http.get("/health")
    lines = [json.loads(JsonLog().format(record)) for record in caplog.records if record.name == "refdesk.requests"]
    assert [(line["key_id"], line["method"], line["route"], line["status"]) for line in lines] == [
        (key.id, "POST", "/v1/search", 200),
        (key.id, "GET", "/v1/documents/{document_id}", 404),
    ]
    assert lines[0]["request_id"] == found.headers["x-request-id"]
    assert lines[0]["timings_ms"]["total"] >= lines[0]["timings_ms"]["own"] > 0
    assert not any(word in str(lines) for word in ("secret matter", "doc_of_nobody", secret))


async def test_the_door_refuses_rather_than_lets_wait(tmp_path: Path) -> None:
    async with open_desk(tmp_path, max_concurrent=1) as desk, open_http(desk) as http:
        await upload(http, {"guide.md": GUIDE})
        hold = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b'{"question": '
            await hold.wait()
            yield b'"pump"}'

        headers = {"Content-Type": "application/json"}
        first = asyncio.create_task(http.post("/v1/search", content=slow(), headers=headers))
        await asyncio.sleep(0.05)
        response = await http.post("/v1/search", json={"question": "pump"})
        assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(response.headers["retry-after"]) >= 1
        assert (await http.get("/health")).status_code == 200
        hold.set()
        assert (await first).status_code == 200
        assert (await http.post("/v1/search", json={"question": "pump"})).status_code == 200


async def test_a_fault_of_ours_tells_the_client_an_id_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A desk that is closed under its app: a real fault."""
    async with open_desk(tmp_path, keys_required=False) as desk:
        pass
    async with open_http(desk, key=None) as http:
        status, error = await refused(http, "POST", "/v1/search", json={"question": "the patient's name"})
    assert (status, error["type"]) == (503, "server_error")
    (record,) = [record for record in caplog.records if record.name == "refdesk.http"]
    assert record.error_id in error["message"]
    assert "patient" not in str(record.__dict__)
