"""Embedding and reranking elsewhere: a model node, and a desk that relies on one."""

import asyncio
import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from models.base import Candidate, ModelNotFoundError, ModelUnavailableError, Passage, UnsupportedModelError
from models.fake import FakeEmbedder, FakeReranker, WordTokenizer
from models.pace import Pace
from models.remote import Remote
from models.remote_embedder import Limits, LocalPart, RemoteEmbedder
from models.remote_reranker import RemoteReranker
from server.settings import Settings
from tests import tei_server
from tests.desks import GUIDE, QUESTION, open_desk, open_http, search, upload
from tests.model_server import AppServer, running
from tests.nodes import KEY, model_node, remote_of

LOCAL = LocalPart(WordTokenizer(), max_tokens=256)
TEXTS = ["The pump is serviced every year.", "", "White matter cells."]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with model_node(tmp_path_factory.mktemp("node")) as server:
        yield server


async def test_a_node_gives_the_very_vectors_and_token_vectors(node: AppServer) -> None:
    remote = await RemoteEmbedder.connect(remote_of(node), "fake", LOCAL)
    here = FakeEmbedder()
    assert remote.info == here.info
    passages = [Passage(text) for text in TEXTS]
    for found, expected in zip(await remote.embed_passages(passages), await here.embed_passages(passages), strict=True):
        np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
        np.testing.assert_array_equal(found.token_bits, expected.token_bits)
    (found_query,), (query,) = await remote.embed_queries(TEXTS[:1]), await here.embed_queries(TEXTS[:1])
    np.testing.assert_allclose(found_query.token_vectors, query.token_vectors, atol=1e-6)
    assert found_query.token_count == query.token_count
    await remote.close()


async def test_passages_go_in_requests_of_a_bounded_size(node: AppServer) -> None:
    remote = await RemoteEmbedder.connect(remote_of(node), "fake", LOCAL, Limits(inputs=3, in_flight=2))
    passages = [Passage(f"pump {n} " * (n % 4)) for n in range(20)]
    found = await remote.embed_passages(passages)
    expected = await FakeEmbedder().embed_passages(passages)
    np.testing.assert_allclose([one.vector for one in found], [one.vector for one in expected], atol=1e-6)
    scrape = httpx2.get(f"{node.url}/metrics").text
    assert 'route="/v1/embeddings"' in scrape
    await remote.close()


def test_the_pace_is_even_after_a_burst() -> None:
    pace = Pace(in_flight=3, requests_per_minute=60)
    assert [pace.take(100.0) for _ in range(5)] == [0, 0, 0, 1, 2]
    assert pace.take(104.5) == 0


async def test_another_model_than_the_nodes_is_refused(node: AppServer) -> None:
    with pytest.raises(ModelNotFoundError, match="serves"):
        await RemoteEmbedder.connect(remote_of(node), "other", LOCAL)
    tokenizer = WordTokenizer()
    tokenizer.fingerprint = "words-2"
    with pytest.raises(UnsupportedModelError, match="another tokenizer"):
        await RemoteEmbedder.connect(remote_of(node), "fake", replace(LOCAL, tokenizer=tokenizer))


async def test_a_wrong_key_is_refused_and_not_retried(node: AppServer) -> None:
    started = time.monotonic()
    with pytest.raises(ModelUnavailableError, match=r"refused the key \(401"):
        await RemoteEmbedder.connect(remote_of(node, key="wrong"), "fake", LOCAL)
    assert time.monotonic() - started < 2


async def test_bulk_work_waits_for_a_node_that_restarts(tmp_path: Path) -> None:
    with model_node(tmp_path) as node:
        remote = await RemoteEmbedder.connect(remote_of(node), "fake", LOCAL)
        await asyncio.to_thread(node.stop)
        work = asyncio.create_task(remote.embed_passages([Passage("pump")]))
        with pytest.raises(ModelUnavailableError):
            await remote.embed_queries(["pump"])  # a question does not wait
        await asyncio.sleep(0.3)
        await asyncio.to_thread(node.start)
        assert len(await work) == 1
        await remote.close()


async def test_a_node_answers_health_readiness_and_models(node: AppServer) -> None:
    async with httpx2.AsyncClient(base_url=node.url) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/ready")).json()["models"] == {"embedder": "fake", "reranker": "late-interaction"}
        assert (await http.get("/v1/models")).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        listed = (await http.get("/v1/models", headers=headers)).json()["data"]
        assert [model["id"] for model in listed] == ["fake", "late-interaction"]
        assert (await http.get("/v1/models/fake", headers=headers)).json() == listed[0]
        assert (await http.get("/v1/models/x", headers=headers)).status_code == 404
        for path in ("/v1/search", "/v1/chat/completions", "/v1/documents"):
            assert (await http.post(path, headers=headers, json={})).status_code == 404


async def test_a_desk_on_a_node_finds_what_one_of_its_own_finds(node: AppServer, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    found = []
    for name, settings in (("here", {}), ("there", {"embedder_urls": node.url, "embedder_api_key_file": key_file})):
        async with open_desk(tmp_path / name, **settings) as desk, open_http(desk) as http:
            await upload(http, {"guide.md": GUIDE})
            found.append((await search(http, QUESTION))["hits"])
    for here, there in zip(*found, strict=True):
        assert (here["text"], here["ranks"]) == (there["text"], there["ranks"])
        assert here["score"] == pytest.approx(there["score"], abs=1e-5)


async def test_a_desk_whose_node_is_gone_still_answers(tmp_path: Path) -> None:
    with model_node(tmp_path) as node:
        key_file = tmp_path / "key"
        key_file.write_text(KEY)
        settings = {"embedder_urls": node.url, "embedder_api_key_file": key_file}
        async with open_desk(tmp_path / "desk", **settings) as desk, open_http(desk) as http:
            await upload(http, {"guide.md": GUIDE})
            await asyncio.to_thread(node.stop)
            reply = await search(http, QUESTION)
            assert reply["hits"]
            assert any("embedder 'fake' does not answer" in line for line in reply["degraded"])


# --- text-embeddings-inference -------------------------------------------------------------------------------------


@pytest.fixture
def tei() -> Iterator[AppServer]:
    with running(AppServer(tei_server.app())) as server:
        yield server


async def test_tei_embeds_in_requests_of_its_own_bound(tei: AppServer) -> None:
    remote = await RemoteEmbedder.connect(remote_of(tei), "bge-small", LOCAL)
    assert (remote.info.name, remote.info.max_tokens, remote.info.has_token_vectors) == ("bge-small", 256, False)
    passages = [Passage(f"pump {n}") for n in range(3 * tei_server.MAX_INPUTS + 1)]
    found, expected = await remote.embed_passages(passages), await FakeEmbedder().embed_passages(passages)
    np.testing.assert_allclose([one.vector for one in found], [one.vector for one in expected], atol=1e-6)
    assert len(await remote.embed_queries([passage.text for passage in passages])) == len(passages)
    await remote.close()


async def test_tei_reranks_in_requests_of_its_own_bound_and_may_start_later(tei: AppServer) -> None:
    late = await RemoteReranker.connect(Remote("reranker 'x'", ["http://127.0.0.1:9"], hint=""), "x")
    with pytest.raises(ModelUnavailableError, match="failed too often"):
        await late.rerank(QUESTION, None, [Candidate("pump")])
    late._remote.replicas = remote_of(tei).replicas  # it is there now
    early = await RemoteReranker.connect(remote_of(tei), "x")
    candidates = [Candidate(f"pump {n} " * n) for n in range(2 * tei_server.MAX_INPUTS + 1)]
    for remote in (late, early):
        scores = await remote.rerank(QUESTION, None, candidates)
        np.testing.assert_allclose(scores, await FakeReranker().rerank(QUESTION, None, candidates), atol=1e-6)
        await remote.close()


@pytest.mark.parametrize("status", [200, 403, 502])
async def test_a_reranker_whose_info_is_a_web_page_is_asked_in_coheres_shape(status: int) -> None:
    async def page(_: Request) -> Response:
        return HTMLResponse("<p>Welcome</p>", status)

    async def rerank(request: Request) -> Response:
        documents = (await request.json())["documents"]
        return JSONResponse({"results": [{"index": i, "relevance_score": i} for i in range(len(documents))]})

    app = Starlette(routes=[Route("/info", page), Route("/v1/rerank", rerank, methods=["POST"])])
    with running(AppServer(app)) as server:
        remote = await RemoteReranker.connect(remote_of(server), "x")
        remote._remote.replicas = remote_of(
            server
        ).replicas  # a replica that failed at /info is left alone for a second
        for _ in range(2):
            assert (await remote.rerank(QUESTION, None, [Candidate("a"), Candidate("b")])).tolist() == [0, 1]
        await remote.close()


async def test_a_server_that_lists_no_models_and_is_not_tei_is_refused() -> None:
    with running(AppServer(Starlette())) as server, pytest.raises(ModelNotFoundError, match="is not there"):
        await RemoteEmbedder.connect(remote_of(server), "fake", LOCAL)


# --- reranking -----------------------------------------------------------------------------------------------------


async def test_a_remote_reranker_gives_the_nodes_scores(tmp_path: Path) -> None:
    with model_node(tmp_path, FakeReranker()) as server:
        remote = await RemoteReranker.connect(remote_of(server), "fake")
        candidates = [Candidate(text) for text in TEXTS]
        scores = await remote.rerank(QUESTION, None, candidates)
        np.testing.assert_allclose(scores, await FakeReranker().rerank(QUESTION, None, candidates), atol=1e-6)
        assert (await remote.rerank(QUESTION, None, [])).shape == (0,)
        await remote.close()
        with pytest.raises(ModelUnavailableError, match="closed"):
            await remote.rerank(QUESTION, None, candidates)


@pytest.fixture(params=["/v1/rerank", "/rerank"])
async def rerank(request: pytest.FixtureRequest, node: AppServer) -> Any:
    async def post(body: dict[str, Any], **headers: str) -> Any:
        async with httpx2.AsyncClient(base_url=node.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
            response = await http.post(request.param, json={"query": QUESTION, **body}, headers=headers)
            assert response.status_code == 200, response.text
            return response.json()

    return post


DOCUMENTS = ["White matter.", "The Kestrel pump must be serviced every six months.", "A pump."]


async def test_rerank_as_cohere_and_jina(rerank: Any) -> None:
    reply = await rerank({"documents": DOCUMENTS, "model": "late-interaction", "top_n": 2, "return_documents": True})
    assert [one["index"] for one in reply["results"]] == [1, 2]
    assert reply["results"][0]["document"] == {"text": DOCUMENTS[1]}
    scores = [one["relevance_score"] for one in reply["results"]]
    assert scores == sorted(scores, reverse=True)
    assert reply["usage"]["total_tokens"] == sum(map(WordTokenizer().count, DOCUMENTS))
    every = (await rerank({"documents": [{"text": text} for text in DOCUMENTS]}))["results"]
    assert sorted(one["index"] for one in every) == [0, 1, 2]
    assert "document" not in every[0]


async def test_rerank_as_tei(rerank: Any) -> None:
    reply = await rerank({"texts": DOCUMENTS, "return_text": True})
    assert [set(one) for one in reply] == [{"index", "score", "text"}] * 3
    assert reply[0]["index"] == 1


async def test_rerank_as_pinecone(rerank: Any) -> None:
    documents = [{"id": str(n), "body": text} for n, text in enumerate(DOCUMENTS)]
    body = {"model": "late-interaction", "documents": documents, "rank_fields": ["body"], "top_n": 1}
    reply = await rerank(body, **{"X-Pinecone-Api-Version": "2025-10"})
    assert reply["data"] == [{"index": 1, "score": reply["data"][0]["score"], "document": documents[1]}]
    assert reply["usage"] == {"rerank_units": 1}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "documents"),
        ({"documents": []}, 400, "documents"),
        ({"documents": [{"title": "x"}]}, 400, "documents"),
        ({"documents": ["x"], "top_n": 0}, 400, "top_n"),
        ({"documents": ["x"], "model": "rerank-v3"}, 404, None),
    ],
)
async def test_a_wrong_reranking_is_refused(node: AppServer, body: dict[str, Any], status: int, param: str) -> None:
    async with httpx2.AsyncClient(base_url=node.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
        response = await http.post("/v1/rerank", json={"query": "pump", **body})
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_token_vectors_travel_only_if_asked_for(node: AppServer) -> None:
    async with httpx2.AsyncClient(base_url=node.url, headers={"Authorization": f"Bearer {KEY}"}) as http:
        plain = (await http.post("/v1/embeddings", json={"model": "fake", "input": "the pump"})).json()["data"][0]
        body = {"model": "fake", "input": ["the pump"], "token_vectors": True}
        more = (await http.post("/v1/embeddings", json=body)).json()["data"][0]
    assert set(plain) == {"object", "index", "embedding"}
    assert len(base64.b64decode(more["token_bits"])) == 2 * 128 // 8
    assert (more["tokens"], more["token_vectors"]) == (2, None)


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"generator_urls": "http://h"}, "generator='extractive'"),
        ({"reranker_urls": "http://h"}, "reranker='late-interaction'"),
        ({"generator_context_length": 10}, "without generator_urls"),
        ({"embedder_api_key_file": "x"}, "without embedder_urls"),
        ({"role": "models"}, "needs node_key_file"),
        ({"role": "models", "keys_required": False, "embedder_urls": "http://h"}, "runs its models itself"),
        ({"node_key_file": "x"}, "without role='models'"),
    ],
)
def test_bad_combinations_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(**given)


def test_urls_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_GENERATOR_URLS", "http://a:1, http://b:2/v1,")
    monkeypatch.setenv("REFDESK_GENERATOR", "qwen3")
    assert Settings().generator_urls == ("http://a:1", "http://b:2/v1")
