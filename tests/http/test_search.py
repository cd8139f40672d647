"""Search over HTTP: shapes, ranks, filters, and refusals that name the field."""

from typing import Any

import httpx2
import pytest

from tests.desks import GUIDE, QUESTION, refused, search, upload


async def test_a_search_gives_hits_with_words_place_and_ranks(http: httpx2.AsyncClient) -> None:
    reply = await search(http, top_k=3)
    hit = reply["hits"][0]
    assert "serviced every six months" in hit["text"]
    assert (hit["uri"], hit["title"], hit["namespace"]) == ("guide.md", "Kestrel pump guide", "default")
    assert GUIDE[hit["start"] : hit["end"]] == hit["text"]
    assert set(hit["ranks"]) >= {"dense", "bm25"}
    assert reply["commits"] == {"default": 1}
    assert reply["reranker"] == "late-interaction"
    assert reply["degraded"] == []
    assert {"own", "total"} <= set(reply["timings_ms"])
    assert "groups" not in hit


async def test_server_timing_tells_the_apps_own_share(http: httpx2.AsyncClient) -> None:
    response = await http.post("/v1/search", json={"question": QUESTION})
    timing = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert 0 < float(timing["own"]) <= float(timing["total"])
    assert response.headers["x-request-id"].startswith("req_")


async def test_the_same_question_comes_from_the_cache(http: httpx2.AsyncClient) -> None:
    question = "Where are drained pumps stored?"
    assert [(await search(http, question))["cached"] for _ in range(2)] == [False, True]


async def test_filters_reach_the_search(http: httpx2.AsyncClient) -> None:
    await upload(
        http, {"m.md": "# Kestrel 2030\n\nThe Kestrel pump of 2030."}, namespace="filters", metadata='{"year": 2030}'
    )
    found = await search(http, namespace="filters", filter={"year": {"$gte": 2030}})
    assert [hit["uri"] for hit in found["hits"]] == ["m.md"]
    assert found["hits"][0]["metadata"] == {"year": 2030.0}
    assert (await search(http, namespace="filters", filter={"year": {"$lt": 2030}}))["hits"] == []


async def test_several_namespaces_are_joined(http: httpx2.AsyncClient) -> None:
    reply = await search(http, "Who earns most of the pump?", namespaces=["default", "hr"], top_k=50)
    assert {hit["namespace"] for hit in reply["hits"]} == {"default", "hr"}
    assert set(reply["commits"]) == {"default", "hr"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "question"),
        ({"question": "   "}, "question"),
        ({"question": 7}, "question"),
        ({"question": "x" * 9000}, "question"),
        ({"question": "x", "top_k": 0}, "top_k"),
        ({"question": "x", "topk": 3}, "topk"),
        ({"question": "x", "filter": {"year": {"$near": 3}}}, "filter"),
        ({"question": "x", "namespaces": [str(i) for i in range(9)]}, "namespaces"),
        ({"question": "x", "namespace": "a", "namespaces": ["b"]}, "namespaces"),
        ({"question": "x", "as_of": 99}, "as_of"),
    ],
)
async def test_a_wrong_search_names_the_field(http: httpx2.AsyncClient, body: dict[str, Any], param: str) -> None:
    status, error = await refused(http, "POST", "/v1/search", json=body)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)


async def test_a_lone_surrogate_is_refused(http: httpx2.AsyncClient) -> None:
    for body in ('{"question": "a \\ud800 b"}', '{"question": "x", "filter": {"a": "\\udfff"}}'):
        headers = {"Content-Type": "application/json"}
        status, error = await refused(http, "POST", "/v1/search", content=body, headers=headers)
        assert (status, error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000])
async def test_a_malformed_body_is_refused(http: httpx2.AsyncClient, body: bytes) -> None:
    for path in ("/v1/search", "/v1/chat/completions", "/v1/embeddings", "/v1/citations/verify", "/v1/keys"):
        headers = {"Content-Type": "application/json"}
        status, error = await refused(http, "POST", path, content=body, headers=headers)
        assert (status, error["type"]) == (400, "invalid_request_error"), path


async def test_unknown_paths_and_methods_have_the_same_shape(http: httpx2.AsyncClient) -> None:
    assert (await refused(http, "GET", "/v1/nothing"))[0] == 404
    assert (await refused(http, "GET", "/v1/search"))[0] == 405
