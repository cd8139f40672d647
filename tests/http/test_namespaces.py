"""A namespace that is dropped: all of it is gone, what was under way ends, and what comes after begins anew."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from indexers.base import Namespace
from server import catalog_changes
from server.auth import Claims
from server.base import NamespaceState, NotFoundError
from server.build import Desk
from server.catalog import Catalog
from server.ingest import Target
from tests.desks import GUIDE, NOTES, QUESTION, new_key, open_desk, open_http, refused, search, text_file, upload

TENANT = "/v1/namespaces/tenant"
WORDS = "collection 'docs' has no namespace 'tenant': ingest into it first"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as desk:
        yield desk


async def leg_hits(desk: Desk, namespace: Namespace, ids: Sequence[str]) -> int:
    """How many of these documents' points any engine of the index still has, of whatever commit."""
    points, _ = await desk.index.scan(namespace, None, None, 10_000)
    return sum(stored.point.document_id in ids for stored in points)


async def test_all_of_it_is_gone_and_the_name_begins_anew(desk: Desk, http: httpx2.AsyncClient) -> None:
    old = await upload(http, {"guide.md": GUIDE, "notes.md": NOTES}, namespace="tenant")
    await upload(http, {"guide.md": GUIDE})
    space = (await desk.catalog.namespace("docs", "tenant")).namespace
    assert await leg_hits(desk, space, old["document_ids"])
    assert {hit["uri"] for hit in (await search(http, namespace="tenant"))["hits"]} == {"guide.md", "notes.md"}
    reply = await http.delete(TENANT)
    dropped = {"object": "namespace.deleted", "collection": "docs", "namespace": "tenant", "deleted": True}
    assert (reply.status_code, reply.json()) == (200, dropped)
    for id_ in old["document_ids"]:
        assert (await refused(http, "GET", f"/v1/documents/{id_}"))[0] == 410
        assert (await refused(http, "GET", f"/v1/documents/{id_}/original"))[0] == 410
    for method, path, body in (
        ("DELETE", TENANT, None),
        ("GET", "/v1/documents?namespace=tenant", None),
        ("POST", "/v1/search", {"question": QUESTION, "namespace": "tenant"}),
    ):
        status, error = await refused(http, method, path, json=body)
        assert (status, error["message"]) == (404, WORDS)
    assert await desk.index.list("docs") == ["default"]
    new = await upload(http, {"guide.md": "# Pumps\n\nThe Kestrel pump is out of service."}, namespace="tenant")
    assert (new["added"], new["commit"]) == (1, 1)
    found = await search(http, namespace="tenant")  # asked before, at a commit of this number
    assert (found["cached"], [hit["text"] for hit in found["hits"]]) == (
        False,
        ["# Pumps\n\nThe Kestrel pump is out of service."],
    )
    assert found["hits"][0]["ranks"].keys() >= {"dense", "bm25"}
    assert await leg_hits(desk, space, old["document_ids"][1:]) == 0
    assert (await search(http))["hits"]


@pytest.mark.parametrize("name", ["a/b", "a/namespaces/b", "..", "Müller & Söhne:2026?#", "%2F"])
async def test_whatever_it_is_called(desk: Desk, http: httpx2.AsyncClient, name: str) -> None:
    await upload(http, {"a.txt": "Words."}, namespace=name)
    path = f"/v1/namespaces/{quote(name, safe='').replace('.', '%2E')}"
    assert (await http.delete(path)).json()["namespace"] == name
    assert await desk.index.list("docs") == []


async def test_an_administrator_of_some_namespaces_drops_these(desk: Desk, http: httpx2.AsyncClient) -> None:
    await upload(http, {"a.txt": "Words."}, namespace="tenant")
    await upload(http, {"a.txt": "Words."}, namespace="other")
    claims = Claims(("admin",), ("docs:tenant", "docs:missing"), groups=None)
    async with open_http(desk, await new_key(desk, replace(claims, groups=("hr",)))) as some:
        assert (await refused(some, "DELETE", TENANT))[0] == 403, "it may hold documents of other groups"
    async with open_http(desk, await new_key(desk, claims)) as some:
        assert (await some.delete(TENANT)).status_code == 200
        told = [await refused(some, "DELETE", TENANT.replace("tenant", name)) for name in ("missing", "other")]
    assert [status for status, _ in told] == [404, 404]
    assert told[0][1]["message"].replace("missing", "other") == told[1][1]["message"]
    assert [state.namespace.name for state in await desk.catalog.namespaces("docs")] == ["other"]


@pytest.mark.parametrize("background", ["false", "true"])
async def test_an_upload_whose_key_was_revoked_meanwhile_brings_nothing_back(
    desk: Desk, http: httpx2.AsyncClient, background: str
) -> None:
    await upload(http, {"a.txt": "Words."}, namespace="tenant")
    made = (await http.post("/v1/keys", json={"name": "leaves", "roles": ["write"]})).json()
    fields = {"namespace": "tenant", "background": background}
    form = httpx2.Request("POST", "http://desk/", data=fields, files={"file": ("late.txt", b"Late words.")})
    content = form.read()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield content[:40]
        begun.set()
        await go_on.wait()
        yield content[40:]

    headers = {"Content-Type": form.headers["content-type"], "Authorization": f"Bearer {made['key']}"}
    late = asyncio.create_task(http.post("/v1/documents", content=slow(), headers=headers))
    await begun.wait()
    assert (await http.delete(f"/v1/keys/{made['id']}")).status_code == 200
    assert (await http.delete(TENANT)).status_code == 200
    go_on.set()
    assert (await late).status_code == 401
    assert (await refused(http, "GET", "/v1/documents?namespace=tenant"))[0] == 404


async def test_a_drop_that_failed_midway_is_finished_by_the_next(desk: Desk, http: httpx2.AsyncClient) -> None:
    (id_,) = (await upload(http, {"a.txt": "Words."}, namespace="tenant"))["document_ids"]
    await desk.catalog.write(catalog_changes.begin_drop, await desk.catalog.namespace("docs", "tenant"))
    assert (
        await refused(http, "POST", "/v1/documents", files={"file": ("b.txt", b"x")}, data={"namespace": "tenant"})
    )[0] == 409
    assert (await http.delete(TENANT)).status_code == 200
    assert (await refused(http, "GET", f"/v1/documents/{id_}"))[0] == 410
    assert await desk.index.list("docs") == []


async def test_an_ingestion_under_way_ends_and_reaches_no_other_namespace(desk: Desk, http: httpx2.AsyncClient) -> None:
    await upload(http, {"a.txt": "Words."}, namespace="tenant")
    at_commit, go_on = asyncio.Event(), asyncio.Event()

    async def before_commit() -> None:
        at_commit.set()
        await go_on.wait()

    sources = [text_file("secret.txt", "The secret words.")]
    ingesting = asyncio.create_task(
        desk.pipeline.ingest(sources, Target("docs", "tenant"), before_commit=before_commit)
    )
    await at_commit.wait()
    assert (await http.delete(TENANT)).status_code == 200
    await upload(http, {"b.txt": "Others."}, namespace="other")
    go_on.set()
    with pytest.raises(NotFoundError, match="dropped meanwhile"):
        await ingesting
    (other,) = await desk.catalog.namespaces("docs")
    assert [one.uri for one in (await desk.catalog.documents(other.id))[0]] == ["b.txt"]
    assert [hit["uri"] for hit in (await search(http, "secret words", namespace="other"))["hits"]] == ["b.txt"]


async def test_searches_under_way_find_what_was_there_or_that_it_is_gone(desk: Desk, http: httpx2.AsyncClient) -> None:
    dropped = asyncio.Event()

    async def look(question: str) -> int:
        was_dropped = dropped.is_set()
        reply = await http.post("/v1/search", json={"question": question, "namespace": "tenant"})
        if reply.status_code == 200:
            assert not was_dropped
        else:
            assert (reply.status_code, reply.json()["error"]["message"]) == (404, WORDS)
        return reply.status_code

    async def drop() -> None:
        assert (await http.delete(TENANT)).status_code == 200
        dropped.set()

    for turn in range(3):
        dropped.clear()
        await upload(http, {"guide.md": GUIDE, "notes.md": NOTES}, namespace="tenant")
        under_way = []
        for number in range(40):
            under_way.append(asyncio.create_task(look(f"{QUESTION} {turn} {number}")))
            if number == 10:
                dropping = asyncio.create_task(drop())
            if number % 4 == 0:
                await asyncio.sleep(0.002)
        await dropping
        assert set(await asyncio.gather(*under_way, look(QUESTION))) == {200, 404}


class OvertakenCatalog(Catalog):
    """A catalog after whose next look at namespaces one is dropped, before anything is done with what was seen."""

    drop: Callable[[], Awaitable[object]] | None = None

    async def snapshot(self, collection: str, names: Sequence[str]) -> Mapping[str, NamespaceState]:
        seen = await super().snapshot(collection, names)
        if self.drop is not None:
            drop, self.drop = self.drop, None
            await drop()
        return seen


async def test_a_search_that_is_overtaken_by_a_drop_says_so(desk: Desk, http: httpx2.AsyncClient) -> None:
    await upload(http, {"guide.md": GUIDE}, namespace="tenant")
    desk.pipeline.catalog = catalog = OvertakenCatalog(desk.catalog._database)
    catalog.drop = lambda: http.delete(TENANT)
    status, error = await refused(http, "POST", "/v1/search", json={"question": QUESTION, "namespace": "tenant"})
    assert (status, error["message"]) == (404, WORDS)
