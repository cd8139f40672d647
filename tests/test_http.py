"""The HTTP API over the real pipeline with the deterministic models: shapes, rights, limits, and exact offsets."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.auth import Claims
from server.base import Principal
from server.build import Desk, build
from server.settings import Settings
from tests.desks import GUIDE, LOCAL_TOKEN, NOTES, new_key, open_desk, open_http, upload

QUESTION = "How often must the Kestrel pump be serviced?"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path_factory.mktemp("desk")) as desk:
        async with open_http(desk) as http:
            await upload(http, {"guide.md": GUIDE, "notes.md": NOTES})
            await upload(http, {"salaries.md": "# Salaries\n\nThe chief earns most.\n"}, namespace="hr", groups="hr")
        yield desk


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_http(desk) as http:
        yield http


async def search(http: httpx2.AsyncClient, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    response = await http.post("/v1/search", json={"question": question, **fields})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def refused(http: httpx2.AsyncClient, method: str, path: str, **kwargs: Any) -> tuple[int, dict[str, Any]]:
    response = await http.request(method, path, **kwargs)
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error


# --- search --------------------------------------------------------------------------------------------------------


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


# --- rights --------------------------------------------------------------------------------------------------------


async def test_no_key_a_wrong_key_and_a_revoked_key_are_refused(desk: Desk, http: httpx2.AsyncClient) -> None:
    async with open_http(desk, key=None) as nobody:
        for path in ("/v1/models", "/v1/nothing", "/openapi.json"):
            assert (await refused(nobody, "GET", path))[0] == 401
        headers: dict[str, str]
        for headers in ({"Authorization": "Bearer rd-wrong"}, {"Api-Key": "rd-wrong"}, {"Authorization": "Basic x"}):
            assert (await refused(nobody, "GET", "/v1/models", headers=headers))[0] == 401
        made = (await http.post("/v1/keys", json={"name": "short-lived"})).json()
        bearer, api_key = {"authorization": f"bearer {made['key']}"}, {"api-key": made["key"]}
        for headers in (bearer, api_key):
            assert (await nobody.get("/v1/models", headers=headers)).status_code == 200
        assert (await http.delete(f"/v1/keys/{made['id']}")).status_code == 200
    async with open_http(desk, key=made["key"]) as revoked:
        assert (await refused(revoked, "GET", "/v1/models"))[0] == 401


async def test_keys_are_stored_hashed_and_listed_without_it(desk: Desk, http: httpx2.AsyncClient) -> None:
    made = (await http.post("/v1/keys", json={"name": "n", "namespaces": ["docs:default"], "groups": ["a"]})).json()
    listed = (await http.get("/v1/keys")).json()["data"]
    (shown,) = [key for key in listed if key["id"] == made["id"]]
    assert shown == {k: v for k, v in made.items() if k != "key"}
    files = [path for path in desk.settings.data_dir.rglob("*") if path.is_file()]
    assert files
    assert not any(made["key"].encode() in path.read_bytes() for path in files)


async def test_an_expired_key_is_refused(desk: Desk, http: httpx2.AsyncClient) -> None:
    made = (await http.post("/v1/keys", json={"name": "n", "lifetime_s": 0.05})).json()
    await asyncio.sleep(0.06)
    async with open_http(desk, key=made["key"]) as late:
        assert (await refused(late, "GET", "/v1/models"))[0] == 401


async def test_roles(desk: Desk, http: httpx2.AsyncClient) -> None:
    guide = (await http.get("/v1/documents")).json()["data"][0]
    async with open_http(desk, key=await new_key(desk, Claims(roles=("read",)))) as reader:
        assert (await search(reader))["hits"]
        assert (await refused(reader, "POST", "/v1/documents", files={"file": ("a.txt", b"a")}))[0] == 403
        assert (await refused(reader, "DELETE", f"/v1/documents/{guide['id']}"))[0] == 403
        assert (await refused(reader, "GET", "/v1/keys"))[0] == 403
        assert "groups" not in (await reader.get(f"/v1/documents/{guide['id']}")).json()
    async with open_http(desk, key=await new_key(desk, Claims(roles=("write",)))) as writer:
        assert (await refused(writer, "POST", "/v1/search", json={"question": "x"}))[0] == 403
        assert (await refused(writer, "POST", "/v1/local/ingest", json={"path": "/"}))[0] == 403
    async with open_http(desk, key=await new_key(desk)) as admin:
        assert (await refused(admin, "POST", "/v1/local/ingest", json={"path": "/"}))[0] == 403
        assert (await admin.get("/v1/status")).status_code == 200


async def test_a_forbidden_namespace_reads_like_a_missing_one(desk: Desk) -> None:
    """Byte for byte, on every route that takes a namespace or a document."""
    claims = Claims(roles=("read", "write"), namespaces=("docs:default",))
    (hidden,) = [d async for d in _documents_of(desk, "hr")]
    async with open_http(desk, key=await new_key(desk, claims)) as http:
        for there, missing in (("hr", "nx"), ("filters", "nx")):
            for method, path, body in (
                ("POST", "/v1/search", {"question": "x", "namespace": "NS"}),
                ("POST", "/v1/search", {"question": "x", "namespaces": ["default", "NS"]}),
                ("POST", "/v1/chat/completions", {"model": "docs:NS", "messages": [{"role": "user", "content": "x"}]}),
                ("POST", "/v1/embeddings", {"model": "docs:NS", "input": "x"}),
                ("GET", "/v1/models/docs:NS", None),
                ("GET", "/v1/documents?namespace=NS", None),
            ):
                replies = []
                for name in (there, missing):
                    text = json.dumps(body).replace("NS", name) if body else None
                    headers = {"Content-Type": "application/json"}
                    response = await http.request(method, path.replace("NS", name), content=text, headers=headers)
                    replies.append((response.status_code, response.text.replace(repr(name), "NS")))
                assert replies[0][0] == 404, (path, replies)
                assert replies[0][1].replace(there, "NS") == replies[1][1].replace(missing, "NS")
        ghost = hidden.replace(hidden[-8:], "0" * 8)
        for path in ("/v1/documents/ID", "/v1/documents/ID/text"):
            first, second = [await refused(http, "GET", path.replace("ID", id_)) for id_ in (hidden, ghost)]
            assert (first[0], first[1]["message"].replace(hidden, ghost)) == (404, second[1]["message"])
        assert (await refused(http, "DELETE", f"/v1/documents/{hidden}"))[0] == 404
        claim = {"version": "v", "start": 0, "end": 1, "quote": "T"}
        for id_ in (hidden, ghost):
            verdict = await http.post("/v1/citations/verify", json={"document_id": id_, **claim})
            assert verdict.json()["status"] == "not_found"
    async with open_http(desk, key=await new_key(desk, Claims(namespaces=("other:x",)))) as http:
        replies = [
            await refused(http, "POST", "/v1/search", json={"question": "x", "collection": c}) for c in ("docs", "nx")
        ]
        assert replies[0][1]["message"].replace("docs", "nx") == replies[1][1]["message"]
        assert (await http.get("/v1/models")).json()["data"] == []


async def test_the_refusals_words_are_the_catalogs(desk: Desk) -> None:
    """What an unlimited key gets for a missing thing is what a limited one gets for a forbidden one."""
    limited = await new_key(desk, Claims(namespaces=("docs:default",)))
    async with open_http(desk) as admin, open_http(desk, key=limited) as reader:
        for body in ({"question": "x", "namespace": "nx"}, {"question": "x", "collection": "nx"}):
            assert await refused(admin, "POST", "/v1/search", json=body) == await refused(
                reader, "POST", "/v1/search", json=body
            )
        nowhere = "/v1/documents/doc_0"
        assert await refused(admin, "GET", nowhere) == await refused(reader, "GET", nowhere)


async def _documents_of(desk: Desk, namespace: str) -> AsyncIterator[str]:
    state = await desk.catalog.namespace("docs", namespace)
    for document in (await desk.catalog.documents(state.id))[0]:
        yield document.id


async def test_a_key_of_one_namespace_means_it_by_the_collections_name(desk: Desk) -> None:
    key = await new_key(desk, Claims(namespaces=("docs:hr",), groups=("hr",)))
    async with open_http(desk, key=key) as http:
        assert [m["id"] for m in (await http.get("/v1/models")).json()["data"]] == ["docs", "docs:hr"]
        assert [hit["uri"] for hit in (await search(http, "Who earns most?"))["hits"]] == ["salaries.md"]
        assert [d["uri"] for d in (await http.get("/v1/documents")).json()["data"]] == ["salaries.md"]


async def test_groups_decide_which_documents_are_seen(desk: Desk) -> None:
    (hidden,) = [d async for d in _documents_of(desk, "hr")]
    async with open_http(desk, key=await new_key(desk, Claims(groups=("sales",)))) as http:
        assert (await search(http, "Who earns most?", namespace="hr"))["hits"] == []
        assert (await http.get("/v1/documents", params={"namespace": "hr"})).json()["data"] == []
        assert (await refused(http, "GET", f"/v1/documents/{hidden}/text"))[0] == 404
    async with open_http(desk, key=await new_key(desk, Claims(groups=("hr",)))) as http:
        assert (await search(http, "Who earns most?", namespace="hr"))["hits"]
        assert (await http.get(f"/v1/documents/{hidden}/text")).json()["text"].startswith("# Salaries")


async def test_keys_off_lets_everybody_on_this_machine_in(tmp_path: Path) -> None:
    async with open_desk(tmp_path, keys_required=False) as desk, open_http(desk, key=None) as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await refused(http, "POST", "/v1/local/ingest", json={"path": "/"}))[0] == 403


def test_a_principal_is_a_value() -> None:
    assert Principal("k", "n", frozenset({"read"})) == Principal("k", "n", frozenset({"read"}))


# --- documents -----------------------------------------------------------------------------------------------------


async def test_an_upload_says_what_it_did(http: httpx2.AsyncClient) -> None:
    files: dict[str, str | bytes] = {
        "a/b.md": "# One\n\nText one.",
        "c.txt": "Text two.",
        "bad.pdf": b"%PDF-1.7 broken",
    }
    receipt = await upload(http, files, namespace="up", groups="x,y", metadata='{"tag": ["p", "q"], "n": 1, "b": true}')
    assert (receipt["added"], receipt["commit"]) == (2, 1)
    assert [(f["uri"], f["reason"]) for f in receipt["failed"]] == [("bad.pdf", "corrupt")]
    listed = (await http.get("/v1/documents", params={"namespace": "up"})).json()
    assert [d["uri"] for d in listed["data"]] == ["a/b.md", "c.txt"]
    assert listed["data"][0]["metadata"] == {"tag": ["p", "q"], "n": 1.0, "b": True}
    assert listed["data"][0]["groups"] == ["x", "y"]
    again = await upload(
        http, {"c.txt": "Text two."}, namespace="up", groups="y,x", metadata='{"tag": ["p", "q"], "n": 1, "b": true}'
    )
    assert (again["unchanged"], again["added"], again["commit"]) == (1, 0, 1)
    changed = await upload(http, {"c.txt": "Text three."}, namespace="up")
    assert (changed["replaced"], changed["commit"]) == (1, 2)


async def test_an_upload_of_which_nothing_can_be_read_is_refused(http: httpx2.AsyncClient) -> None:
    status, error = await refused(http, "POST", "/v1/documents", files={"file": ("bad.pdf", b"%PDF-1.7 broken")})
    assert (status, error["code"]) == (422, "unreadable")
    assert "bad.pdf" in error["message"]


@pytest.mark.parametrize(
    ("kwargs", "param"),
    [
        ({"data": {"namespace": "x"}}, "file"),
        ({"json": {"a": 1}}, "file"),
        ({"files": {"file": ("../../etc/passwd", b"x")}}, "file"),
        ({"files": {"file": ("a\u202eb", b"x")}}, "file"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metadata": "[1]"}}, "metadata"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metadata": '{"a": {"b": 1}}'}}, "metadata"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metdata": "{}"}}, "metdata"),
    ],
)
async def test_a_wrong_upload_names_the_field(http: httpx2.AsyncClient, kwargs: dict[str, Any], param: str) -> None:
    status, error = await refused(http, "POST", "/v1/documents", **kwargs)
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    "metadata", ['{"a": NaN}', '{"$a": 1}', '{"": 1}', '{"a": 9007199254740993}', '{"a": "\\ud800"}']
)
async def test_metadata_that_cannot_be_kept_is_refused(http: httpx2.AsyncClient, metadata: str) -> None:
    files, data = {"file": ("a.txt", b"some text")}, {"metadata": metadata, "namespace": "odd"}
    status, _ = await refused(http, "POST", "/v1/documents", files=files, data=data)
    assert status == 400


async def test_an_upload_is_limited_while_it_is_read(tmp_path: Path) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.txt"\r\n\r\n'
        for _ in range(1000):
            read += 10_000
            yield b"x" * 10_000

    async with open_desk(tmp_path, max_upload_bytes=50_000) as desk, open_http(desk) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        status, error = await refused(http, "POST", "/v1/documents", content=endless(), headers=headers)
        assert (status, error["code"]) == (413, "request_too_large")
        assert read < 200_000
        status, _ = await refused(http, "POST", "/v1/documents", files={"file": ("b.txt", b"x" * 200_000)})
        assert status == 413


async def test_documents_are_listed_in_pages(http: httpx2.AsyncClient) -> None:
    await upload(http, {f"{i}.txt": f"Text {i}." for i in range(5)}, namespace="pages")
    seen, after = list[str](), None
    for _ in range(3):
        params = {"namespace": "pages", "limit": "2"} | ({"after": after} if after else {})
        page = (await http.get("/v1/documents", params=params)).json()
        seen += [d["uri"] for d in page["data"]]
        after = page["next"]
        assert page["has_more"] == (after is not None)
    assert seen == [f"{i}.txt" for i in range(5)]


async def test_a_deleted_document_is_gone(http: httpx2.AsyncClient) -> None:
    receipt = await upload(http, {"short.txt": "Here today."}, namespace="del")
    (id_,) = receipt["document_ids"]
    document = (await http.get(f"/v1/documents/{id_}")).json()
    citation = {"document_id": id_, "version": document["version"], "start": 0, "end": 4, "quote": "Here"}
    assert (await http.post("/v1/citations/verify", json=citation)).json()["status"] == "verified"
    assert (await http.delete(f"/v1/documents/{id_}")).json()["deleted"] is True
    assert (await refused(http, "GET", f"/v1/documents/{id_}"))[0] == 410
    assert (await refused(http, "DELETE", f"/v1/documents/{id_}"))[0] == 410
    assert (await http.post("/v1/citations/verify", json=citation)).json()["status"] == "gone"
    assert (await search(http, "What is here today?", namespace="del"))["hits"] == []


async def test_text_by_span_counts_code_points(http: httpx2.AsyncClient) -> None:
    text = "𝔘nicode 🛠️ ünd so weiter: naïve 東京 👩‍👩‍👧 end."
    (id_,) = (await upload(http, {"astral.txt": text}, namespace="astral"))["document_ids"]
    version = (await http.get(f"/v1/documents/{id_}")).json()["version"]
    for start, end in [(0, 1), (8, 10), (0, len(text)), (30, 34), (len(text), len(text))]:
        span = await http.get(f"/v1/documents/{id_}/text", params={"version": version, "start": start, "end": end})
        assert span.json()["text"] == text[start:end]
    assert (await http.get(f"/v1/documents/{id_}/text")).json()["end"] == len(text)
    assert (await refused(http, "GET", f"/v1/documents/{id_}/text?start=9&end=3"))[0] == 400
    assert (await refused(http, "GET", f"/v1/documents/{id_}/text?end={len(text) + 1}"))[0] == 400
    (hit,) = (await search(http, "unicode 東京", namespace="astral"))["hits"]
    assert text[hit["start"] : hit["end"]] == hit["text"]


async def test_verification_tells_what_does_not_match(http: httpx2.AsyncClient) -> None:
    (id_,) = (await upload(http, {"v.txt": "The seal is green."}, namespace="verify"))["document_ids"]
    version = (await http.get(f"/v1/documents/{id_}")).json()["version"]
    base = {"document_id": id_, "version": version, "start": 4, "end": 8}
    for change, status in (
        ({"quote": "seal"}, "verified"),
        ({"quote": "Seal"}, "mismatch"),
        ({"quote": "seal", "end": 999}, "mismatch"),
        ({"quote": "seal", "version": "0" * 64}, "not_found"),
        ({"quote": "seal", "document_id": "doc_0"}, "not_found"),
    ):
        assert (await http.post("/v1/citations/verify", json=base | change)).json()["status"] == status, change
    assert (await refused(http, "POST", "/v1/citations/verify", json=base))[1]["param"] == "quote"


async def test_a_path_is_ingested_with_progress_for_the_local_token(desk: Desk, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.md").write_text(f"# Title {i}\n\nText {i}.")
    async with open_http(desk, key=LOCAL_TOKEN) as http:
        body = {"path": str(tmp_path), "namespace": "local", "prune": True}
        for changes in ({"added": 3}, {"unchanged": 3}, {"unchanged": 2, "pruned": 1}):
            response = await http.post("/v1/local/ingest", json=body)
            events = [json.loads(line[6:]) for line in response.text.splitlines() if line]
            assert events[-1]["object"] == "receipt"
            assert {kind: events[-1][kind] for kind in changes} == changes
            if "unchanged" in changes:
                (tmp_path / "1.md").unlink(missing_ok=True)
        assert (await refused(http, "POST", "/v1/local/ingest", json=body | {"path": "/no/such"}))[0] == 422


# --- chat ----------------------------------------------------------------------------------------------------------


async def test_a_stream_is_the_whole_answer_in_pieces(http: httpx2.AsyncClient) -> None:
    body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    whole = (await http.post("/v1/chat/completions", json=body)).json()
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
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


# --- embeddings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [{"input": ""}, {"input": []}, {"input": [[]]}, {"input": [1.5]}, {"input": [-1]}, {"input": {}}]
)
async def test_a_wrong_input_is_refused(http: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    status, error = await refused(http, "POST", "/v1/embeddings", json={"model": "docs", **body})
    assert (status, error["param"]) == (400, "input")


async def test_dimensions_are_the_models(http: httpx2.AsyncClient) -> None:
    body = {"model": "docs", "input": "x", "dimensions": 3}
    assert (await refused(http, "POST", "/v1/embeddings", json=body))[1]["param"] == "dimensions"


# --- the rest ------------------------------------------------------------------------------------------------------


async def test_health_readiness_and_metrics_are_open(desk: Desk) -> None:
    async with open_http(desk, key=None) as http:
        assert (await http.get("/health")).json()["status"] == "ok"
        assert (await http.get("/ready")).json()["models"]["embedder"] == "fake"
        assert (await http.get("/metrics")).status_code == 200


async def test_metrics_count_requests_stages_errors_and_tokens(desk: Desk) -> None:
    async with open_http(desk) as http:
        await search(http, "a question for the metrics")
        await search(http, "a question for the metrics")
        await refused(http, "POST", "/v1/search", json={"question": "x", "filter": {"a": {"$near": 1}}})
        body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
        await http.post("/v1/chat/completions", json=body)
        scrape = (await http.get("/metrics")).text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }
    assert samples["refdesk_requests_total", "/v1/search", "200", "POST"] == 2
    assert samples["refdesk_requests_total", "/v1/search", "400", "POST"] == 1
    assert samples["refdesk_errors_total", "FilterError"] == 1
    assert samples["refdesk_cache_total", "hit", "l1"] >= 1
    assert samples["refdesk_answers_total", "answered"] == 1
    assert samples["refdesk_tokens_total", "completion"] > 0
    assert samples["refdesk_stage_seconds_count", "dense"] >= 1
    assert samples["refdesk_own_seconds_count", "/v1/search"] == 2
    assert "question for the metrics" not in scrape


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
