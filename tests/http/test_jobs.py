"""Uploads in the background: answered at once, done later, cancelled, bounded, seen by whom they concern."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server import catalog_jobs
from server.auth import Claims
from server.build import Desk
from tests.desks import GUIDE, NOTES, new_key, open_desk, open_http, refused, search

ENDED = {"succeeded", "failed", "cancelled"}


@asynccontextmanager
async def at_work(folder: Path, **overrides: Any) -> AsyncIterator[tuple[Desk, httpx2.AsyncClient]]:
    """A desk that works on jobs, and its administrator."""
    async with open_desk(folder, **overrides) as desk, open_http(desk) as http:
        desk.jobs.start(desk.settings.job_workers)
        yield desk, http


async def send(http: httpx2.AsyncClient, files: dict[str, str | bytes], **fields: Any) -> dict[str, Any]:
    parts = [("file", (name, text.encode() if isinstance(text, str) else text)) for name, text in files.items()]
    response = await http.post("/v1/documents", files=parts, data={"background": "true", **fields})
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    return job


async def ended(http: httpx2.AsyncClient, id_: str, within_s: float = 30) -> dict[str, Any]:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        job: dict[str, Any] = (await http.get(f"/v1/jobs/{id_}")).json()
        if job["state"] in ENDED:
            return job
        await asyncio.sleep(0.02)
    raise AssertionError(f"the job is still {job['state']}")


async def blocks(desk: Desk, id_: str) -> bytes | None:
    return await desk.catalog.read(catalog_jobs.block, id_, 0, 0)


async def test_an_upload_in_the_background_is_done_after_its_answer(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (desk, http):
        sent = await send(http, {"guide.md": GUIDE, "notes.md": NOTES, "broken.pdf": b"%PDF-1.7 no"}, namespace="a")
        assert sent["state"] in {"queued", "running"}
        assert sent["files"] == ["guide.md", "notes.md", "broken.pdf"]
        assert sent["receipt"] is None
        job = await ended(http, sent["id"])
        assert (job["state"], job["attempts"], job["error"]) == ("succeeded", 1, None)
        assert job["receipt"]["added"] == 2
        assert [failure["uri"] for failure in job["receipt"]["failed"]] == ["broken.pdf"]
        counts = job["progress"]
        assert (counts["sources"], counts["read"], counts["added"], counts["failed"]) == (3, 3, 2, 1)
        assert job["created_at"] <= job["started_at"] <= job["finished_at"]
        assert (await search(http, namespace="a"))["hits"]
        assert await blocks(desk, job["id"]) is None, "the bytes that waited are let go"
        scrape = (await http.get("/metrics")).text
        assert 'refdesk_jobs_total{state="succeeded"} 1.0' in scrape
        assert 'refdesk_documents_total{outcome="added"} 2.0' in scrape


async def test_jobs_of_a_namespace_keep_their_order(tmp_path: Path) -> None:
    async with at_work(tmp_path, job_workers=4) as (_, http):
        sent = [await send(http, {"a.txt": f"version {n}"}) for n in range(8)]
        others = [await send(http, {"a.txt": "x"}, namespace=f"n{n}") for n in range(3)]
        done = [await ended(http, job["id"]) for job in sent]
        for job in others:
            assert (await ended(http, job["id"]))["state"] == "succeeded"
        commits = [job["receipt"]["commit"] for job in done]
        assert commits == sorted(commits)
        (document,) = (await http.get("/v1/documents")).json()["data"]
        assert (await http.get(f"/v1/documents/{document['id']}/text")).json()["text"] == "version 7"


async def test_what_cannot_be_read_fails_with_the_reason(tmp_path: Path) -> None:
    async with at_work(tmp_path) as (_, http):
        job = await ended(http, (await send(http, {"broken.pdf": b"%PDF-1.7 no"}))["id"])
        assert (job["state"], job["error"]["code"]) == ("failed", "unreadable")
        assert "broken.pdf" in job["error"]["message"]


async def test_jobs_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk, open_http(desk) as http:
        sent = [(await send(http, {"a.txt": f"{n}"}))["id"] for n in range(5)]
        first = (await http.get("/v1/jobs", params={"limit": 3})).json()
        second = (await http.get("/v1/jobs", params={"limit": 3, "after": first["next"]})).json()
        assert [job["id"] for job in first["data"] + second["data"]] == sent[::-1]
        assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)


async def test_cancelling(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk, open_http(desk) as http:
        waiting = await send(http, {"a.txt": "text"})
        cancelled = (await http.post(f"/v1/jobs/{waiting['id']}/cancel")).json()
        assert cancelled["state"] == "cancelled"
        assert await blocks(desk, waiting["id"]) is None
        assert (await http.post(f"/v1/jobs/{waiting['id']}/cancel")).json()["state"] == "cancelled"
        finished = await send(http, {"b.txt": "text"})
        desk.jobs.start(1)
        await ended(http, finished["id"])
        status, error = await refused(http, "POST", f"/v1/jobs/{finished['id']}/cancel")
        assert (status, error["code"]) == (409, "conflict")
        assert (await refused(http, "POST", "/v1/jobs/job_none/cancel"))[0] == 404
        names = [document["uri"] for document in (await http.get("/v1/documents")).json()["data"]]
        assert names == ["b.txt"]


async def test_one_that_runs_is_cancelled_and_the_next_goes_on(tmp_path: Path) -> None:
    async with at_work(tmp_path, commit_documents=1) as (_, http):
        long = await send(http, {f"{n}.txt": f"text {n} " * 300 for n in range(250)})
        after = await send(http, {"after.txt": "text"})
        while (await http.get(f"/v1/jobs/{long['id']}")).json()["state"] == "queued":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asked = (await http.post(f"/v1/jobs/{long['id']}/cancel")).json()
        assert asked["state"] in {"cancelling", "cancelled"}
        job = await ended(http, long["id"])
        assert job["state"] == "cancelled"
        assert (await ended(http, after["id"]))["state"] == "succeeded"
        there = {d["uri"] for d in (await http.get("/v1/documents", params={"limit": 1000})).json()["data"]}
        assert "after.txt" in there
        assert len(there) < 251


async def test_there_is_room_for_so_many(tmp_path: Path) -> None:
    async with open_desk(tmp_path, max_jobs=2, max_job_bytes=100) as desk, open_http(desk) as http:
        await send(http, {"a.txt": "x" * 60})
        form = {"background": "true"}
        response = await http.post("/v1/documents", files={"file": ("b.txt", b"x" * 60)}, data=form)
        assert (response.status_code, response.headers["Retry-After"]) == (429, "10")
        assert response.json()["error"]["code"] == "rate_limit_exceeded"
        await send(http, {"c.txt": "x"})
        assert (await refused(http, "POST", "/v1/documents", files={"file": ("d.txt", b"x")}, data=form))[0] == 429
        assert (await http.post("/v1/documents", files={"file": ("e.txt", b"x")})).status_code == 201
        desk.jobs.start(1)
        for job in (await http.get("/v1/jobs")).json()["data"]:
            assert (await ended(http, job["id"]))["state"] == "succeeded"
        await send(http, {"f.txt": "x"})


@pytest.mark.parametrize("given", ["yes", "1", "True"])
async def test_background_is_true_or_false(http: httpx2.AsyncClient, given: str) -> None:
    files = {"file": ("a.txt", b"x")}
    status, error = await refused(http, "POST", "/v1/documents", files=files, data={"background": given})
    assert (status, error["param"]) == (400, "background")


async def test_jobs_are_seen_by_whom_they_concern(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk, open_http(desk) as http:
        own = await new_key(desk, Claims(("write",), ("docs:a",), ("x",)))
        async with open_http(desk, own) as writer:
            sent = await send(writer, {"a.txt": "text"}, namespace="a", groups="secret")
            assert (await writer.get(f"/v1/jobs/{sent['id']}")).status_code == 200, "it is one's own"
            hidden = [await send(http, {"b.txt": "text"}, namespace="b"), await send(http, {"c.txt": "text"})]
            hidden.append(await send(http, {"d.txt": "text"}, namespace="a", groups="hr"))
            for job in [*hidden, {"id": "job_none"}]:
                for method, path in (("GET", ""), ("POST", "/cancel")):
                    status, error = await refused(writer, method, f"/v1/jobs/{job['id']}{path}")
                    assert (status, error["message"].replace(job["id"], "…")) == (
                        404,
                        "there is no job '…': finished ones are kept for a week",
                    )
            listed = (await writer.get("/v1/jobs")).json()["data"]
            assert [job["id"] for job in listed] == [sent["id"]]
        async with open_http(desk, await new_key(desk, Claims(("read",)))) as reader:
            assert (await refused(reader, "GET", "/v1/jobs"))[0] == 403
            form = {"background": "true"}
            assert (await refused(reader, "POST", "/v1/documents", files={"file": ("a", b"x")}, data=form))[0] == 403


async def test_a_desk_that_closes_gives_its_job_back_and_the_next_one_does_it(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{n}.txt": f"text {n} " * 200 for n in range(200)}
    async with at_work(tmp_path, commit_documents=10) as (_, http):
        id_ = (await send(http, files))["id"]
        while (await http.get(f"/v1/jobs/{id_}")).json()["state"] == "queued":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with at_work(tmp_path) as (_, http):
        job = await ended(http, id_)
        assert (job["state"], job["attempts"]) == ("succeeded", 1)
        assert job["progress"]["added"] + job["progress"]["unchanged"] == 200
        assert len((await http.get("/v1/documents", params={"limit": 1000})).json()["data"]) == 200
