"""Deleting many documents at once: what is named or found goes from both legs, what the caller may not read stays."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from indexers.base import View
from server import catalog_changes, delete
from server.auth import Claims
from server.base import StoredDocument, document_id
from server.build import Desk
from server.catalog import Catalog
from tests.desks import new_key, open_desk, open_http, refused, search, upload

PATH = "/v1/documents/delete"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as desk:
        yield desk


async def deleted(http: httpx2.AsyncClient, **body: Any) -> tuple[int, int]:
    """How many documents went, and the commit."""
    response = await http.post(PATH, json=body)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply == {"object": "documents.deleted", "deleted": reply["deleted"], "commit": reply["commit"]}
    return reply["deleted"], reply["commit"]


async def left(desk: Desk, http: httpx2.AsyncClient, namespace: str = "default") -> set[str]:
    """The uris of a namespace, if the catalog, every point of the index and both legs of a search agree on them."""
    listed = (await http.get("/v1/documents", params={"namespace": namespace, "limit": 1000})).json()["data"]
    state = await desk.catalog.namespace("docs", namespace)
    points, _ = await desk.index.scan(state.namespace, None, None, 10_000)
    assert {stored.point.document_id for stored in points} == {document["id"] for document in listed}
    found = (await search(http, "words of the pump", namespace=namespace, top_k=100, rerank=False))["hits"]
    assert all(hit["ranks"].keys() == {"dense", "bm25"} for hit in found)
    assert {hit["uri"] for hit in found} == {document["uri"] for document in listed}
    return {document["uri"] for document in listed}


@pytest.mark.parametrize("by", ["ids", "uris", "filter"])
async def test_what_is_named_or_found_is_gone_for_good(desk: Desk, http: httpx2.AsyncClient, by: str) -> None:
    uris = [f"{n}.txt" for n in range(6)]
    for uri in uris:
        metadata = json.dumps({"year": 2020 + int(uri[0]) % 2})
        await upload(http, {uri: f"These words of the pump are {uri}."}, metadata=metadata)
        await upload(http, {uri: f"These words of the pump are {uri}."}, metadata=metadata, namespace="other")
    ids = {uri: document_id("docs", "default", uri) for uri in uris}
    gone = ["1.txt", "3.txt", "5.txt"]
    foreign = document_id("docs", "other", "0.txt")
    body: dict[str, Any] = {
        "ids": {"ids": [*(ids[uri] for uri in gone), ids["1.txt"], "doc_unknown", foreign]},
        "uris": {"uris": [*gone, "1.txt", "unknown.txt"]},
        "filter": {"filter": {"year": {"$gte": 2021}}},
    }[by]
    assert await deleted(http, **body) == (3, 7)
    assert await left(desk, http) == {"0.txt", "2.txt", "4.txt"}
    assert await left(desk, http, "other") == set(uris)
    for uri in gone:
        assert (await refused(http, "GET", f"/v1/documents/{ids[uri]}/original"))[0] == 410
    assert await deleted(http, **body) == (0, 7), "again: nothing is left to delete, and nothing is committed"
    await upload(http, {"1.txt": "These words of the pump came back."}, metadata='{"year": 2021}')
    assert await deleted(http, **body) == (1, 9)
    assert await left(desk, http) == {"0.txt", "2.txt", "4.txt"}


async def test_what_the_caller_may_not_read_is_neither_deleted_nor_counted(
    desk: Desk, http: httpx2.AsyncClient
) -> None:
    acl = {"open.txt": "", "hr.txt": "hr", "board.txt": "board", "both.txt": "board,hr"}

    async def fill() -> None:
        for uri, groups in acl.items():
            await upload(http, {uri: f"These words of the pump are {uri}."}, groups=groups, metadata='{"n": 1}')

    key = await new_key(desk, Claims(("write",), ("docs:default",), ("hr",)))
    async with open_http(desk, key) as of_hr:
        for body in (
            {"uris": list(acl)},
            {"ids": [document_id("docs", "default", uri) for uri in acl]},
            {"filter": {"n": 1}},
        ):
            await fill()
            assert (await deleted(of_hr, **body))[0] == 3
            assert await left(desk, http) == {"board.txt"}


async def test_by_uri_also_what_is_to_be_ingested_again(desk: Desk, http: httpx2.AsyncClient) -> None:
    (id_,) = (await upload(http, {"a.txt": "Words of the pump."}))["document_ids"]
    await desk.catalog.write(catalog_changes.forget_source, [id_])
    assert await deleted(http, uris=["a.txt"]) == (1, 2)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, None, "exactly one of ids, uris and filter"),
        ({"ids": ["a"], "uris": ["a"]}, None, "exactly one"),
        ({"uris": ["a"], "filter": {}}, None, "exactly one"),
        ({"filter": {}}, "filter", "drop the namespace"),
        ({"filter": {"$or": []}}, "filter", "$or"),
        ({"filter": "x"}, "filter", "dictionary"),
        ({"ids": []}, "ids", "at least 1"),
        ({"uris": ["a"] * 1001}, "uris", "at most 1000"),
        ({"ids": [1]}, "ids.0", "string"),
        ({"ids": ["a"], "groups": ["hr"]}, "groups", "not permitted"),
        ({"ids": ["a"], "namespace": "nx"}, None, "has no namespace 'nx'"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    desk: Desk, http: httpx2.AsyncClient, body: dict[str, Any], param: str | None, words: str
) -> None:
    await upload(http, {"a.txt": "Words of the pump."})
    status, error = await refused(http, "POST", PATH, json=body)
    assert (status, error["param"]) == (404 if "namespace" in body else 400, param)
    assert words in error["message"]
    assert await left(desk, http) == {"a.txt"}


class OvertakenCatalog(Catalog):
    """A catalog after each of whose pages of documents something happens, before anything is done with the page."""

    after: Callable[[], Awaitable[object]]

    async def documents(
        self, namespace_id: int, after: str | None = None, limit: int = 100, *, groups: frozenset[str] | None = None
    ) -> tuple[list[StoredDocument], str | None]:
        page = await super().documents(namespace_id, after, limit, groups=groups)
        await self.after()
        return page


async def test_what_is_replaced_meanwhile_is_judged_anew(desk: Desk, http: httpx2.AsyncClient) -> None:
    """An upload that was answered before the delete's commit is not lost, nor one that became another's to read."""
    for uri in ("corrected.txt", "hidden.txt", "same.txt", "stays.txt"):
        year = 2024 if uri == "stays.txt" else 2020
        await upload(http, {uri: f"These words of the pump are {uri}."}, metadata=json.dumps({"year": year}))

    async def replace() -> None:
        await upload(http, {"corrected.txt": "These words of the pump are right."}, metadata='{"year": 2024}')
        await upload(http, {"hidden.txt": "Others' words of the pump."}, metadata='{"year": 2020}', groups="board")
        await upload(http, {"stays.txt": "These words of the pump are old."}, metadata='{"year": 2020}')

    desk.pipeline.catalog = catalog = OvertakenCatalog(desk.catalog._database)
    catalog.after = replace
    key = await new_key(desk, Claims(("write",), ("docs:default",), ("hr",)))
    async with open_http(desk, key) as of_hr:
        assert (await deleted(of_hr, filter={"year": 2020}))[0] == 1
    assert await left(desk, http) == {"corrected.txt", "hidden.txt", "stays.txt"}


async def test_one_that_is_broken_off_leaves_whole_documents_and_is_finished_by_the_next(
    desk: Desk, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delete, "PAGE", 2)
    text = "These words of the pump fill more than one chunk. " * 60
    await upload(http, {f"{n}.txt": f"{n} {text}" for n in range(5)}, metadata='{"n": 1}')
    pages = 0

    async def second_fails() -> None:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise ConnectionError("the machine went away")

    desk.pipeline.catalog = catalog = OvertakenCatalog(desk.catalog._database)
    catalog.after = second_fails
    assert (await refused(http, "POST", PATH, json={"filter": {"n": 1}}))[0] == 500
    assert await left(desk, http) == {"2.txt", "3.txt", "4.txt"}
    state = await desk.catalog.namespace("docs", "default")
    chunks = (await desk.catalog.statistics(state.id))[1]
    assert await desk.index.count(state.namespace, View(state.commit)) == chunks > 3
    assert await deleted(http, filter={"n": 1}) == (3, 4)
    assert await left(desk, http) == set()
