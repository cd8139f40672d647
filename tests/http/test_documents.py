"""Documents over HTTP: upload, list, delete, text by span, verification; limits while reading."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.auth import Claims
from server.build import Desk
from server.ingest import Target
from tests import make_files
from tests.desks import LOCAL_TOKEN, new_key, open_desk, open_http, refused, search, text_file, upload

TWO_PAGES = make_files.pdf("Two", [[("One", ["The first page."])], [("Two", ["The second page."])]])
METADATA = json.dumps({"tag": ["p", "q"], "n": 1, "b": True, "round": 2**70})


async def test_an_upload_says_what_it_did(http: httpx2.AsyncClient) -> None:
    files: dict[str, str | bytes] = {
        "a/b.md": "# One\n\nText one.",
        "c.txt": "Text two.",
        "bad.pdf": b"%PDF-1.7 broken",
    }
    receipt = await upload(http, files, namespace="up", groups="x,y", metadata=METADATA)
    assert (receipt["added"], receipt["commit"]) == (2, 1)
    assert [(f["uri"], f["reason"]) for f in receipt["failed"]] == [("bad.pdf", "corrupt")]
    listed = (await http.get("/v1/documents", params={"namespace": "up"})).json()
    assert [d["uri"] for d in listed["data"]] == ["a/b.md", "c.txt"]
    assert listed["data"][0]["metadata"] == {"tag": ["p", "q"], "n": 1.0, "b": True, "round": 2.0**70}
    assert listed["data"][0]["groups"] == ["x", "y"]
    again = await upload(http, {"c.txt": "Text two."}, namespace="up", groups="y,x", metadata=METADATA)
    assert (again["unchanged"], again["added"], again["commit"]) == (1, 0, 1)
    changed = await upload(http, {"c.txt": "Text three."}, namespace="up")
    assert (changed["replaced"], changed["commit"]) == (1, 2)
    opened = await upload(http, {"a/b.md": "# One\n\nText one."}, namespace="up", groups="")  # to everybody
    assert (opened["patched"], opened["commit"]) == (1, 3)
    first, second = receipt["document_ids"]
    assert [one["document_ids"] for one in (again, changed, opened)] == [[second], [second], [first]]


async def test_an_upload_that_names_no_groups_leaves_those_of_what_is_there(
    desk: Desk, http: httpx2.AsyncClient
) -> None:
    async def groups() -> list[list[str]]:
        listed = (await http.get("/v1/documents", params={"namespace": "acl"})).json()["data"]
        return [document["groups"] for document in listed]

    (id_, _) = (await upload(http, {"a.txt": "One.", "b.txt": "Two."}, namespace="acl"))["document_ids"]
    assert await groups() == [[], []]
    await http.patch(f"/v1/documents/{id_}", json={"groups": ["hr"]})
    again = await upload(http, {"a.txt": "One.", "b.txt": "Two."}, namespace="acl")  # as every night
    assert (again["unchanged"], await groups()) == (2, [["hr"], []])
    changed = await upload(http, {"a.txt": "One, changed.", "c.txt": "Three."}, namespace="acl")
    assert (changed["replaced"], changed["added"], await groups()) == (1, 1, [["hr"], [], []])
    (hit,) = (await search(http, "One, changed.", namespace="acl", top_k=1))["hits"]
    assert hit["uri"] == "a.txt"
    async with open_http(desk, key=await new_key(desk, Claims(groups=("sales",)))) as sales:
        hits = (await search(sales, "One, changed.", namespace="acl"))["hits"]
    assert {hit["uri"] for hit in hits} == {"b.txt", "c.txt"}
    await upload(http, {"a.txt": "One, changed."}, namespace="acl", groups="")
    assert await groups() == [[], [], []]


async def test_what_could_not_be_read_is_listed_until_it_can(desk: Desk, http: httpx2.AsyncClient) -> None:
    bad: dict[str, str | bytes] = {f"{name}.pdf": b"%PDF-1.7 broken" for name in "abc"}
    await upload(http, {**bad, "d.txt": "Sound."}, namespace="broken")
    seen, after = [], ""
    while after is not None:
        page = (await http.get("/v1/failures", params={"namespace": "broken", "limit": 2, "after": after})).json()
        seen += [(failure["uri"], failure["reason"]) for failure in page["data"]]
        after = page["next"]
    assert seen == [(uri, "corrupt") for uri in bad]
    await upload(http, {"b.pdf": make_files.pdf("Whole", [[("Whole", ["It is whole now."])]])}, namespace="broken")
    page = (await http.get("/v1/failures", params={"namespace": "broken"})).json()
    assert [failure["uri"] for failure in page["data"]] == ["a.pdf", "c.pdf"]
    await upload(http, {"a.pdf": make_files.without_pages(TWO_PAGES, {2})}, namespace="broken")  # one page is lost
    page = (await http.get("/v1/failures", params={"namespace": "broken"})).json()
    assert [failure["uri"] for failure in page["data"]] == ["a.pdf", "c.pdf"]
    await http.post("/v1/documents/delete", json={"namespace": "broken", "uris": ["a.pdf"]})
    page = (await http.get("/v1/failures", params={"namespace": "broken"})).json()
    assert [failure["uri"] for failure in page["data"]] == ["c.pdf"], "nothing is left of what was deleted"
    for claims, status in (
        (Claims(roles=("read", "write"), groups=None), 403),
        (Claims(roles=("admin",), groups=("hr",)), 403),
        (Claims(roles=("admin",), namespaces=("docs:default",), groups=None), 404),
        (Claims(roles=("admin",), namespaces=("docs:broken",), groups=None), 200),
    ):
        async with open_http(desk, key=await new_key(desk, claims)) as some:
            assert (await some.get("/v1/failures", params={"namespace": "broken"})).status_code == status


async def test_names_that_systems_and_scripts_make_are_taken(http: httpx2.AsyncClient) -> None:
    names = ["Screenshot at 3.05\u202fPM.txt", "Rapport n°\u00a05.txt", "نامه\u200cها.txt", "👩\u200d💻.txt"]
    receipt = await upload(http, dict.fromkeys(names, "words"), namespace="named")
    assert receipt["added"] == 4
    listed = (await http.get("/v1/documents", params={"namespace": "named"})).json()
    assert {one["uri"] for one in listed["data"]} == set(names)


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
        ({"files": [("file", ("a.txt", b"one")), ("file", ("./a.txt", b"two"))]}, "file"),
        ({"files": {"file": ("a.txt", b"x"), "groups": ("blob", b"hr")}}, "groups"),
        ({"files": {"file": ("a.txt", b"x")}, "params": {"namespace": "hr"}}, "namespace"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metadata": "[1]"}}, "metadata"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metadata": '{"a": {"b": 1}}'}}, "metadata"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metdata": "{}"}}, "metdata"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"groups": '["board", "hr"]'}}, "groups"),
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


async def test_a_patch_adds_metadata_and_replaces_groups_at_once(desk: Desk, http: httpx2.AsyncClient) -> None:
    words = "# Seals\n\nThe seal of the patch is green."
    metadata = json.dumps({"year": 2020, "lang": "en"})
    (id_,) = (await upload(http, {"seal.md": words}, namespace="patched", metadata=metadata))["document_ids"]
    path = f"/v1/documents/{id_}"
    before = (await http.get(path)).json()

    async def found(of: httpx2.AsyncClient, year: int) -> list[str]:
        reply = await search(of, "What colour has the seal?", namespace="patched", filter={"year": year}, rerank=False)
        assert all(hit["ranks"].keys() == {"dense", "bm25"} for hit in reply["hits"])
        return [hit["uri"] for hit in reply["hits"]]

    assert (await found(http, 2020), await found(http, 2024)) == (["seal.md"], [])
    patched = (await http.patch(path, json={"metadata": {"year": 2024, "tags": ["x"]}})).json()
    assert patched == (await http.get(path)).json()
    assert patched["metadata"] == {"year": 2024.0, "lang": "en", "tags": ["x"]}
    beside = {"metadata", "updated_at"}
    assert {k: v for k, v in patched.items() if k not in beside} == {k: v for k, v in before.items() if k not in beside}
    assert (await found(http, 2020), await found(http, 2024)) == ([], ["seal.md"])
    async with open_http(desk, await new_key(desk, Claims(("read",), groups=("hr",)))) as of_hr:
        assert await found(of_hr, 2024) == ["seal.md"]
        assert (await http.patch(path, json={"groups": ["board", "board"]})).json()["groups"] == ["board"]
        assert await found(of_hr, 2024) == []
        assert (await refused(of_hr, "GET", path))[0] == 404
        patched = (await http.patch(path, json={"groups": [], "metadata": {"year": 2020}})).json()
        assert (patched["groups"], patched["metadata"]["year"]) == ([], 2020.0)
        assert await found(of_hr, 2020) == ["seal.md"]
    again = await upload(http, {"seal.md": words}, namespace="patched")
    assert (again["unchanged"], again["patched"]) == (1, 0), "the same bytes keep what was added"
    await http.delete(path)
    assert (await refused(http, "PATCH", path, json={"groups": []}))[0] == 410


async def test_patches_and_an_unchanged_upload_side_by_side_lose_nothing(desk: Desk, http: httpx2.AsyncClient) -> None:
    (id_,) = (await upload(http, {"a.txt": "Words."}, namespace="beside", metadata='{"n": 0}'))["document_ids"]
    at_commit, go_on = asyncio.Event(), asyncio.Event()

    async def before_commit() -> None:
        at_commit.set()
        await go_on.wait()

    target = Target("docs", "beside", metadata={"from": "upload"})
    unchanged = [text_file("a.txt", "Words.")]
    uploading = asyncio.create_task(desk.pipeline.ingest(unchanged, target, before_commit=before_commit))
    await at_commit.wait()
    bodies = [{"metadata": {f"field {n}": n}} for n in range(5)] + [{"metadata": {"n": 1}}]
    replies = await asyncio.gather(*(http.patch(f"/v1/documents/{id_}", json=body) for body in bodies))
    assert [reply.status_code for reply in replies] == [200] * 6
    go_on.set()
    await uploading
    expected = {"n": 1.0, "from": "upload"} | {f"field {n}": float(n) for n in range(5)}
    assert (await http.get(f"/v1/documents/{id_}")).json()["metadata"] == expected


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "metadata", "give metadata, groups or both"),
        ({"groups": None}, "metadata", "give metadata, groups or both"),
        ({"metadata": {}, "uri": "b.txt"}, "uri", "not permitted"),
        ({"metadata": {"a": {"b": 1}}}, "metadata", "at 'a'"),
        ({"metadata": {"a": 2**53 + 1}}, "metadata", "no float64 holds this integer"),
        ({"metadata": {"$a": 1}}, None, "'$a'"),
        ({"metadata": []}, "metadata", "dictionary"),
        ({"groups": "hr"}, "groups", "list"),
        ({"groups": ["hr", ""]}, None, "group ''"),
    ],
)
async def test_a_wrong_patch_is_told_what_is_wrong(
    http: httpx2.AsyncClient, body: dict[str, Any], param: str | None, words: str
) -> None:
    document = (await http.get("/v1/documents")).json()["data"][0]
    status, error = await refused(http, "PATCH", f"/v1/documents/{document['id']}", json=body)
    assert (status, error["param"]) == (400, param)
    assert words in error["message"]
    assert (await http.get("/v1/documents")).json()["data"][0] == document


async def test_groups_say_who_reads_not_who_writes(desk: Desk, http: httpx2.AsyncClient) -> None:
    """A patch gives what an upload gives, and does not reach what its caller may not read."""
    async with open_http(desk, await new_key(desk, Claims(("write",), ("docs:whose",), ("hr",)))) as of_hr:
        (id_,) = (await upload(of_hr, {"a.txt": "Words."}, namespace="whose", groups="hr"))["document_ids"]
        given = await of_hr.patch(f"/v1/documents/{id_}", json={"groups": ["board"]})
        assert (given.status_code, given.json()["groups"]) == (200, ["board"])
        body = {"groups": ["hr"]}
        told = [await refused(of_hr, "PATCH", f"/v1/documents/{one}", json=body) for one in (id_, "doc_0")]
        assert told[0][1]["message"].replace(id_, "doc_0") == told[1][1]["message"]
        assert [status for status, _ in told] == [404, 404]
        assert (await upload(of_hr, {"a.txt": "Words."}, namespace="whose", groups="hr"))["patched"] == 1


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


async def test_a_span_is_kept_by_a_browser_as_long_as_it_may_be_read(http: httpx2.AsyncClient) -> None:
    (id_,) = (await upload(http, {"kept.txt": "The seal is green."}, namespace="kept"))["document_ids"]

    async def asked(etag: str = "", **params: Any) -> httpx2.Response:
        return await http.get(f"/v1/documents/{id_}/text", params=params, headers={"If-None-Match": etag})

    whole = await asked()
    assert (whole.headers["cache-control"], whole.headers["vary"]) == ("private, no-cache", "Authorization, Api-Key")
    etag = whole.headers["etag"]
    assert [(await asked(etag, **params)).status_code for params in ({}, {"start": 1}, {"end": 3})] == [304, 200, 200]
    await upload(http, {"kept.txt": "The seal is blue."}, namespace="kept")
    assert (await asked(etag)).json()["text"] == "The seal is blue."
    assert (await http.delete(f"/v1/documents/{id_}")).status_code == 200
    assert (await asked(etag)).status_code == 410


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


@pytest.mark.parametrize("cut", [1, 5, 30])
async def test_a_form_that_was_cut_off_is_refused(http: httpx2.AsyncClient, cut: int) -> None:
    """Its last field may say who may read the upload."""
    part = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    name = f"cut-{cut}.txt"
    body = part.format("file", f'; filename="{name}"', "Salaries.") + part.format("groups", "", "board") + "--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    status, error = await refused(
        http, "POST", "/v1/documents", content=body.removesuffix("\r\n").encode()[:-cut], headers=headers
    )
    assert status == 400
    assert "cut off" in error["message"]
    assert name not in {one["uri"] for one in (await http.get("/v1/documents")).json()["data"]}
    assert (await http.post("/v1/documents", content=body.encode(), headers=headers)).status_code == 201
