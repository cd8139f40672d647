"""Who may do and see what: keys, roles, namespaces, groups; a forbidden thing reads like a missing one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.auth import Claims, Keys
from server.base import Role, UnauthorizedError
from server.build import Desk
from server.catalog import Catalog
from server.catalog_keys import StoredKey
from server.ingest import Target
from tests.desks import new_key, open_desk, open_http, refused, search, text_file


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


class SlowCatalog(Catalog):
    """A catalog whose key look-ups say when they have `found` theirs, and wait for `released` before they tell it."""

    found: asyncio.Event
    released: asyncio.Event

    async def find_key(self, sha256: str) -> StoredKey | None:
        key = await super().find_key(sha256)
        self.found.set()
        await self.released.wait()
        return key


async def test_a_key_revoked_while_it_is_looked_up_is_refused_from_then_on(tmp_path: Path) -> None:
    catalog = await SlowCatalog.open(tmp_path / "catalog.sqlite")
    catalog.found, catalog.released = asyncio.Event(), asyncio.Event()
    try:
        keys = Keys(catalog)
        key, secret = await keys.add("n", Claims())
        under_way = asyncio.create_task(keys.principal(secret))
        await catalog.found.wait()
        await keys.revoke(key.id)
        catalog.released.set()
        assert (await under_way).key_id == key.id
        with pytest.raises(UnauthorizedError):
            await keys.principal(secret)
    finally:
        await catalog.close()


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
        assert (await refused(reader, "PATCH", f"/v1/documents/{guide['id']}", json={"metadata": {}}))[0] == 403
        assert (await refused(reader, "GET", "/v1/keys"))[0] == 403
        assert (await refused(reader, "DELETE", "/v1/namespaces/default"))[0] == 403
        assert (await refused(reader, "POST", "/v1/documents/delete", json={"ids": [guide["id"]]}))[0] == 403
        assert "groups" not in (await reader.get(f"/v1/documents/{guide['id']}")).json()
    async with open_http(desk, key=await new_key(desk, Claims(roles=("write",)))) as writer:
        assert (await refused(writer, "POST", "/v1/search", json={"question": "x"}))[0] == 403
        assert (await refused(writer, "DELETE", "/v1/namespaces/default"))[0] == 403
        assert (await refused(writer, "POST", "/v1/local/ingest", json={"path": "/"}))[0] == 403
    async with open_http(desk, key=await new_key(desk)) as admin:
        assert (await refused(admin, "POST", "/v1/local/ingest", json={"path": "/"}))[0] == 403
        assert (await admin.get("/v1/status")).status_code == 200


ASKED = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("method", "path", "kwargs"),
    [
        ("POST", "/v1/search", {"json": {"question": "x", "namespace": "NS"}}),
        ("POST", "/v1/search", {"json": {"question": "x", "namespaces": ["default", "NS"]}}),
        ("POST", "/v1/chat/completions", {"json": {"model": "docs:NS", **ASKED}}),
        ("POST", "/v1/chat/completions", {"json": {"model": "docs:NS", "stream": True, **ASKED}}),
        ("POST", "/v1/embeddings", {"json": {"model": "docs:NS", "input": "x"}}),
        ("GET", "/v1/models/docs:NS", {}),
        ("GET", "/v1/documents?namespace=NS", {}),
        ("POST", "/v1/documents", {"data": {"namespace": "NS"}, "files": {"file": ("a.txt", b"a")}}),
        ("GET", "/v1/documents/ID", {}),
        ("GET", "/v1/documents/ID/text", {}),
        ("DELETE", "/v1/documents/ID", {}),
        ("PATCH", "/v1/documents/ID", {"json": {"groups": []}}),
        ("POST", "/v1/search", {"json": {"question": "x", "collection": "COLLECTION"}}),
        ("POST", "/v1/documents/delete", {"json": {"uris": ["salaries.md"], "namespace": "NS"}}),
        ("POST", "/v1/documents/delete", {"json": {"ids": ["ID"], "collection": "COLLECTION"}}),
        ("DELETE", "/v1/namespaces/NS", {}),
        ("DELETE", "/v1/namespaces/default?collection=COLLECTION", {}),
    ],
)
async def test_what_a_key_may_not_reach_reads_like_what_is_missing(
    desk: Desk, method: str, path: str, kwargs: dict[str, Any]
) -> None:
    (hidden,) = [d async for d in _documents_of(desk, "hr")]
    roles: tuple[Role, ...] = ("admin",) if "/namespaces/" in path else ("read", "write")
    groups = None if roles == ("admin",) else ()
    claims = Claims(roles=roles, namespaces=("docs:default",), groups=groups)
    if "COLLECTION" in repr((path, kwargs)):
        claims = replace(claims, namespaces=("other:x",))
    replies = []
    async with open_http(desk, key=await new_key(desk, claims)) as http:
        for namespace, id_, collection in (("hr", hidden, "docs"), ("nx", hidden[:-4] + "0000", "nope")):
            given = {"NS": namespace, "ID": id_, "COLLECTION": collection}
            names = {placeholder: name for placeholder, name in given.items() if placeholder in repr((path, kwargs))}
            named = _named(kwargs, names)
            response = await http.request(method, _named(path, names), **named)
            text = response.text
            for placeholder, name in names.items():
                text = text.replace(f"'{name}'", placeholder).replace(f":{name}'", f":{placeholder}'")
            replies.append((response.status_code, text))
    assert replies[0] == replies[1]
    assert replies[0][0] == 404


def _named(value: Any, names: dict[str, str]) -> Any:
    """The value with its placeholders named, whatever holds them."""
    if isinstance(value, dict):
        return {key: _named(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, str):
        for placeholder, name in names.items():
            value = value.replace(placeholder, name)
    return value


async def test_a_citation_out_of_reach_is_not_found(desk: Desk) -> None:
    (hidden,) = [d async for d in _documents_of(desk, "hr")]
    claim = {"version": "v", "start": 0, "end": 1, "quote": "T"}
    async with open_http(desk, key=await new_key(desk, Claims(namespaces=("docs:default",)))) as http:
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "docs"
        ids = (hidden, "doc_0")
        replies = [(await http.post("/v1/citations/verify", json={"document_id": id_, **claim})).json() for id_ in ids]
    assert replies[0]["status"] == replies[1]["status"] == "not_found"
    assert replies[0]["detail"].replace(hidden, "doc_0") == replies[1]["detail"]
    async with open_http(desk, key=await new_key(desk, Claims(namespaces=("other:x",)))) as http:
        assert (await http.get("/v1/models")).json()["data"] == []


async def test_the_refusals_words_are_the_catalogs(desk: Desk) -> None:
    """What an unlimited key gets for a missing thing is what a limited one gets for a forbidden one."""
    limited = await new_key(desk, Claims(namespaces=("docs:default",)))
    async with open_http(desk) as admin, open_http(desk, key=limited) as reader:
        for body in ({"question": "x", "namespace": "nx"}, {"question": "x", "collection": "nx"}):
            assert await refused(admin, "POST", "/v1/search", json=body) == await refused(
                reader, "POST", "/v1/search", json=body
            )
        for method, path, body in (("GET", "/v1/models/docs:nx", {}), ("POST", "/v1/embeddings", {"input": "x"})):
            told = [await refused(http, method, path, json={"model": "docs:nx", **body}) for http in (admin, reader)]
            assert told[0] == told[1]
            assert told[0][0] == 404
        nowhere = "/v1/documents/doc_0"
        assert await refused(admin, "GET", nowhere) == await refused(reader, "GET", nowhere)


async def _documents_of(desk: Desk, namespace: str) -> AsyncIterator[str]:
    state = await desk.catalog.namespace("docs", namespace)
    for document in (await desk.catalog.documents(state.id))[0]:
        yield document.id


async def test_a_key_of_one_namespace_means_it_by_the_collections_name(desk: Desk) -> None:
    key = await new_key(desk, Claims(namespaces=("docs:hr", "docs:hr"), groups=("hr",)))
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


async def test_a_page_of_documents_names_none_that_the_key_may_not_read(desk: Desk) -> None:
    acl = {"a.md": (), "b.md": ("hr",), "c.md": ("hr", 'say "hr"'), "d.md": ("%hr",), "e.md": (), "f.md": ("hr",)}
    for uri, groups in acl.items():
        await desk.pipeline.ingest([text_file(uri, f"What {uri} says.")], Target("docs", "paged", groups))
    for groups in ([], ["hr"], ['say "hr"'], ["%hr", "nobody"], ["h"], [","]):
        expected = [uri for uri, named in acl.items() if not named or {*named} & {*groups}]
        async with open_http(desk, key=await new_key(desk, Claims(groups=tuple(groups)))) as http:
            seen, after = [], ""
            while after is not None:
                params = {"namespace": "paged", "limit": 1, "after": after}
                page = (await http.get("/v1/documents", params=params)).json()
                seen += [document["uri"] for document in page["data"]]
                assert (len(page["data"]), page["has_more"]) == (1, page["next"] is not None)
                assert page["next"] in {seen[-1], None}
                after = page["next"]
        assert seen == expected


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(desk: Desk, http: httpx2.AsyncClient) -> None:
    made = (await http.post("/v1/keys", json={"name": "slow", "requests_per_minute": 6})).json()
    async with open_http(desk, key=made["key"]) as slow, open_http(desk, key=await new_key(desk)) as other:
        assert (await slow.get("/v1/models")).status_code == 200
        response = await slow.get("/v1/models")
        assert (response.status_code, response.headers["Retry-After"]) == (429, "10")
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert made["id"] in error["message"]
        assert made["key"] not in error["message"]
        assert (await slow.get("/health")).status_code == 200
        for _ in range(20):
            assert (await other.get("/v1/models")).status_code == 200
    for wrong in (0, -1, "many", 1e9):
        assert (await refused(http, "POST", "/v1/keys", json={"name": "n", "requests_per_minute": wrong}))[0] == 400


async def test_a_rate_for_every_key_without_one_of_its_own(tmp_path: Path) -> None:
    async with open_desk(tmp_path, requests_per_minute=6) as desk:
        async with open_http(desk, key=await new_key(desk)) as http:
            assert [(await http.get("/v1/models")).status_code for _ in range(2)] == [200, 429]
        async with open_http(desk, key=await new_key(desk, Claims(requests_per_minute=600))) as http:
            assert [(await http.get("/v1/models")).status_code for _ in range(9)] == [200] * 9
        async with open_http(desk) as http:  # commands on this machine
            assert [(await http.get("/v1/models")).status_code for _ in range(9)] == [200] * 9


async def test_keys_off_lets_everybody_on_this_machine_in(tmp_path: Path) -> None:
    async with open_desk(tmp_path, keys_required=False) as desk, open_http(desk, key=None) as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await refused(http, "POST", "/v1/local/ingest", json={"path": "/"}))[0] == 403


async def test_a_key_gives_no_more_than_it_has(desk: Desk) -> None:
    some = await new_key(desk, Claims(roles=("admin",), namespaces=("docs:one",)))
    async with open_http(desk, key=some) as of_one:
        for method, path in (("GET", "/v1/keys"), ("GET", "/v1/status"), ("POST", "/v1/repair")):
            assert (await refused(of_one, method, path))[0] == 403
        assert (await refused(of_one, "POST", "/v1/keys", json={"name": "all", "groups": None}))[0] == 403
    board = await new_key(desk, Claims(roles=("admin",), groups=("board",)))
    async with open_http(desk, key=board) as of_board:
        for groups in (None, ["hr"], ["board", "hr"]):
            assert (await refused(of_board, "POST", "/v1/keys", json={"name": "n", "groups": groups}))[0] == 403
        for groups in ([], ["board"]):
            reply = await of_board.post("/v1/keys", json={"name": "n", "groups": groups})
            assert (reply.status_code, reply.json()["groups"]) == (201, groups)


async def test_what_is_listed_as_a_model_can_be_asked(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk, open_http(desk) as http:
        for namespace in ("legal", "tenders"):
            await desk.pipeline.ingest([text_file("a.txt", "The law.")], Target("docs", namespace))

        async def listed(of: httpx2.AsyncClient) -> list[str]:
            return [model["id"] for model in (await of.get("/v1/models")).json()["data"]]

        assert await listed(http) == ["docs:legal", "docs:tenders"]
        for model in await listed(http):
            body = {"model": model, "messages": [{"role": "user", "content": "What law?"}]}
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        async with open_http(desk, key=await new_key(desk, Claims(namespaces=("docs:gone", "docs:legal")))) as some:
            assert await listed(some) == ["docs:legal"]
        await desk.pipeline.ingest([text_file("a.txt", "The law.")], Target("docs", "default"))
        assert await listed(http) == ["docs"]
