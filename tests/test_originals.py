"""Originals: what was ingested comes back byte by byte, to those who may read it, until its document is gone."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select

from server.auth import Claims
from server.base import NotFoundError, StoreUnavailableError
from server.build import Desk
from server.ingest import Target
from server.originals import AT_ONCE, Originals
from server.originals_folder import UNFINISHED, FolderOriginals
from server.repair import RepairReport, repair
from server.tables import lost_originals
from tests.desks import GUIDE, NOTES, new_key, open_desk, open_http, refused, text_file, upload

LINES = '{"text": "The first line is about pumps."}\n{"text": "The second one is about ships."}\n'


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_http(desk) as client:
        yield client


def objects(desk: Desk) -> list[Path]:
    folder = desk.settings.data_dir / "originals"
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def ids(http: httpx2.AsyncClient) -> dict[str, str]:
    return {document["uri"]: document["id"] for document in (await http.get("/v1/documents")).json()["data"]}


async def original(http: httpx2.AsyncClient, uri: str, **headers: str) -> httpx2.Response:
    return await http.get(f"/v1/documents/{(await ids(http))[uri]}/original", headers=headers)


# --- over HTTP -----------------------------------------------------------------------------------------------------


async def test_an_upload_comes_back_byte_by_byte(http: httpx2.AsyncClient) -> None:
    latin = "Café prices: ½ off\r\n".encode("latin-1") * 20
    await upload(http, {"guide.md": GUIDE, "prices.txt": latin})
    response = await original(http, "prices.txt")
    assert response.content == latin, "not the canonical text"
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["cache-control"] == "private, no-cache"
    again = await original(http, "prices.txt", **{"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_page_is_a_download_and_does_not_run_here(http: httpx2.AsyncClient) -> None:
    await upload(http, {'Größe "1".html': "<html><body><h1>Size</h1><script>alert(1)</script>Words.</body></html>"})
    (uri,) = await ids(http)
    headers = (await original(http, uri)).headers
    assert headers["content-disposition"].startswith("attachment; filename*=UTF-8''Gr")
    assert headers["x-content-type-options"] == "nosniff"


async def test_who_may_not_read_a_document_may_not_have_its_original(desk: Desk, http: httpx2.AsyncClient) -> None:
    await upload(http, {"guide.md": GUIDE}, groups="staff")
    path = f"/v1/documents/{(await ids(http))['guide.md']}/original"
    for claims in (
        Claims(frozenset({"read"}), ("docs:default",), frozenset({"guests"})),
        Claims(frozenset({"read"}), ("docs:other",), frozenset({"staff"})),
    ):
        async with open_http(desk, await new_key(desk, claims)) as stranger:
            assert (await refused(stranger, "GET", path))[0] == 404
    staff = Claims(frozenset({"read"}), ("docs:default",), frozenset({"staff"}))
    async with open_http(desk, await new_key(desk, staff)) as reader:
        assert (await reader.get(path)).content == GUIDE.encode()


async def test_a_line_of_jsonl_is_its_document_s_original(desk: Desk, http: httpx2.AsyncClient) -> None:
    """The file would show other documents, whose readers may be others."""
    await upload(http, {"lines.jsonl": LINES})
    assert (await original(http, "lines.jsonl#2")).content == LINES.splitlines()[1].encode()
    await http.delete(f"/v1/documents/{(await ids(http))['lines.jsonl#1']}")
    assert [path.read_bytes() for path in objects(desk)] == [LINES.splitlines()[1].encode()]


async def test_a_deleted_document_s_original_is_gone(desk: Desk, http: httpx2.AsyncClient) -> None:
    await upload(http, {"guide.md": GUIDE, "notes.md": NOTES})
    path = f"/v1/documents/{(await ids(http))['guide.md']}"
    assert len(objects(desk)) == 2
    assert (await http.delete(path)).status_code == 200
    assert [each.read_bytes() for each in objects(desk)] == [NOTES.encode()]
    assert (await refused(http, "GET", f"{path}/original"))[0] == 410


async def test_a_damaged_object_is_not_passed_off_as_the_original(desk: Desk, http: httpx2.AsyncClient) -> None:
    await upload(http, {"guide.md": GUIDE})
    (path,) = objects(desk)
    path.write_bytes(GUIDE.encode().replace(b"six", b"two"))
    with pytest.raises(ConnectionError):  # the reply breaks off
        await original(http, "guide.md")
    path.unlink()
    status, error = await refused(http, "GET", f"/v1/documents/{(await ids(http))['guide.md']}/original")
    assert (status, error["code"]) == (404, "not_found")


# --- through commits -----------------------------------------------------------------------------------------------


async def stored(desk: Desk, uri: str) -> str:
    state = await desk.catalog.namespace("docs", "default")
    return (await desk.catalog.lookup(state.id, [uri]))[uri].original


async def test_replacing_replaces_the_original_and_the_unchanged_is_not_stored_again(desk: Desk) -> None:
    for words in ("First words.", "First words.", "Other words.", "Other words.\r\n"):
        await desk.pipeline.ingest([text_file("a.txt", words)], Target("docs"))
        assert [path.read_bytes() for path in objects(desk)] == [words.encode()]
    name = await stored(desk, "a.txt")
    await desk.pipeline.ingest([text_file("a.txt", "Other words.\r\n")], Target("docs"))
    assert await stored(desk, "a.txt") == name


async def test_equal_bytes_of_two_documents_are_two_objects(desk: Desk) -> None:
    """So that deleting one cannot take the other's away, whatever runs beside it."""
    await desk.pipeline.ingest([text_file(name, "Equal words.") for name in ("a.txt", "b.txt")], Target("docs"))
    state = await desk.catalog.namespace("docs", "default")
    a, b = [(await desk.catalog.lookup(state.id, [uri]))[uri] for uri in ("a.txt", "b.txt")]
    await desk.pipeline.delete_named(state, [a.id], None)
    assert [path.read_bytes() for path in objects(desk)] == [b"Equal words."]
    assert [piece async for piece in desk.originals.read(b.original)] == [b"Equal words."]


async def test_dropping_a_namespace_takes_its_originals(desk: Desk) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs", "tenant"))
    await desk.pipeline.ingest([text_file("a.txt", "Others.")], Target("docs"))
    await desk.writer.drop(await desk.catalog.namespace("docs", "tenant"))
    assert [path.read_bytes() for path in objects(desk)] == [b"Others."]


async def test_they_are_kept_only_if_wanted_and_made_up_for_later(tmp_path: Path) -> None:
    async with open_desk(tmp_path, keep_originals=False) as desk:
        await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
        assert objects(desk) == []
        async with open_http(desk) as http:
            assert (await original(http, "a.txt")).status_code == 404
    async with open_desk(tmp_path) as desk:
        receipt = await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
        assert (receipt.tally.patched, receipt.tally.chunks) == (1, 0)
        assert [path.read_bytes() for path in objects(desk)] == [b"Words."]
        receipt = await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
        assert receipt.tally.unchanged == 1
    async with open_desk(tmp_path, keep_originals=False) as desk:
        await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
        assert len(objects(desk)) == 1, "the same bytes stay where they are"
        await desk.pipeline.ingest([text_file("a.txt", "New ones.")], Target("docs"))
        assert objects(desk) == [], "an original of other bytes is no original"


# --- crashes and failures ------------------------------------------------------------------------------------------


async def test_what_no_commit_refers_to_is_swept_once_it_is_old(desk: Desk) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
    await desk.originals.keep(b"Written before a crash.", sha256(b"Written before a crash.").hexdigest())
    assert await desk.originals.sweep() == 0, "an ingestion may be about to commit it"
    assert await desk.originals.sweep(older_than_s=-1) == 1
    assert [path.read_bytes() for path in objects(desk)] == [b"Words."]


async def test_another_desk_s_originals_in_one_store_are_left_alone(desk: Desk, tmp_path: Path) -> None:
    async with open_desk(tmp_path / "other") as other:
        theirs = await Originals.of(other.catalog, FolderOriginals(desk.settings.data_dir / "originals"))
        name = await theirs.keep(b"Theirs.", sha256(b"Theirs.").hexdigest())
        assert await desk.originals.sweep(older_than_s=-1) == 0
        assert [piece async for piece in theirs.read(name)] == [b"Theirs."]


async def test_repair_notes_what_is_missing_and_the_next_ingestion_stores_it(desk: Desk) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "Words."), text_file("b.txt", "Others.")], Target("docs"))
    next(path for path in objects(desk) if path.read_bytes() == b"Words.").unlink()
    found = await repair(desk.catalog, desk.index, desk.writer, desk.originals)
    assert found == RepairReport(missing_originals=1)
    assert (await repair(desk.catalog, desk.index, desk.writer, desk.originals)).found_nothing
    receipt = await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
    assert (receipt.tally.patched, receipt.tally.chunks) == (1, 0)
    assert len(objects(desk)) == 2


async def test_a_store_that_fails_fails_the_ingestion_and_not_a_delete(desk: Desk) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
    state = await desk.catalog.namespace("docs", "default")
    (document,), _ = await desk.catalog.documents(state.id)
    folder = desk.settings.data_dir / "originals"
    os.rename(folder, folder.with_name("away"))
    folder.write_bytes(b"a file where the folder was")
    with pytest.raises(StoreUnavailableError):
        await desk.pipeline.ingest([text_file("b.txt", "Others.")], Target("docs"))
    assert (await desk.catalog.namespace("docs", "default")).commit == state.commit, "nothing half visible"
    await desk.pipeline.delete_named(state, [document.id], None)
    assert await waiting(desk) == 1
    folder.unlink()
    os.rename(folder.with_name("away"), folder)
    assert await desk.originals.purge() == 1
    assert (await waiting(desk), objects(desk)) == (0, [])


async def waiting(desk: Desk) -> int:
    count: int = await desk.catalog.read(lambda c: c.execute(select(func.count()).select_from(lost_originals)).scalar())
    return count


class SlowFolder(FolderOriginals):
    """Takes longer for what comes sooner, and fails for what it is told."""

    def __init__(self, root: Path, fails: bytes = b"") -> None:
        super().__init__(root)
        self.fails, self.writing, self.most = fails, 0, 0

    async def put(self, name: str, data: bytes) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        try:
            await asyncio.sleep(0.1 / self.most)
            if data == self.fails:
                raise StoreUnavailableError("the disk is full")
            await super().put(name, data)
        finally:
            self.writing -= 1


async def test_several_files_are_stored_at_once_and_handed_on_in_order(desk: Desk) -> None:
    store = SlowFolder(desk.settings.data_dir / "originals")
    desk.pipeline.originals = await Originals.of(desk.catalog, store)
    texts = {f"{number:02}.txt": f"These are the words of file {number}." for number in range(40)}
    receipt = await desk.pipeline.ingest([text_file(*named) for named in texts.items()], Target("docs"))
    state = await desk.catalog.namespace("docs", "default")
    stored = (await desk.catalog.documents(state.id))[0]
    assert [document.id for document in stored] == list(receipt.document_ids), "by uri: as they were sent"
    for document in stored:
        pieces = [piece async for piece in desk.pipeline.originals.read(document.original)]
        assert b"".join(pieces).decode() == texts[document.uri]
    assert 4 < store.most <= AT_ONCE


async def test_a_store_that_fails_amid_many_leaves_whole_documents(desk: Desk) -> None:
    store = SlowFolder(desk.settings.data_dir / "originals", fails=b"words 30")
    desk.pipeline.originals = await Originals.of(desk.catalog, store)
    sent = [text_file(f"{number:02}.txt", f"words {number}") for number in range(40)]
    with pytest.raises(StoreUnavailableError, match="full"):
        await desk.pipeline.ingest(sent, Target("docs"))
    assert store.writing == 0, "nothing is left running"
    state = await desk.catalog.namespace("docs", "default")
    for document in (await desk.catalog.documents(state.id))[0]:
        assert [piece async for piece in desk.pipeline.originals.read(document.original)]
    await desk.originals.sweep(older_than_s=-1)
    desk.pipeline.originals = desk.originals
    receipt = await desk.pipeline.ingest(sent, Target("docs"))
    assert receipt.tally.added + receipt.tally.unchanged == 40


async def test_a_file_half_written_by_a_crash_is_removed_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "originals"
    FolderOriginals(folder)
    (folder / UNFINISHED / "half").write_bytes(b"half a docu")
    FolderOriginals(folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_an_original_that_is_replaced_while_it_is_asked_for_is_the_new_one(
    desk: Desk, http: httpx2.AsyncClient
) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "Words.")], Target("docs"))
    state = await desk.catalog.namespace("docs", "default")
    before = (await desk.catalog.lookup(state.id, ["a.txt"]))["a.txt"]
    await desk.pipeline.ingest([text_file("a.txt", "Words.\r\n")], Target("docs"))
    with pytest.raises(NotFoundError):
        await anext(desk.originals.read(replace(before).original))
    assert (await original(http, "a.txt")).content == b"Words.\r\n"


@pytest.mark.parametrize("fault", ["commit.begun", "commit.catalog_written", "commit.applied"])
async def test_killed_while_it_replaces_and_started_again(tmp_path: Path, fault: str) -> None:
    """Whatever was being done: each document has its own original afterwards, and nothing else is stored."""
    source, data = tmp_path / "a.txt", tmp_path / "data"
    async with open_desk(data) as desk:
        await desk.pipeline.ingest([text_file("a.txt", "First words.")], Target("docs"))
    source.write_text("Second words.")
    settings = ["--data-dir", str(data), "--set", "embedder=fake", "--set", "generator=fake"]
    command = [sys.executable, "-m", "server", *settings, "ingest", str(source)]
    dying = {**os.environ, "REFDESK_FAULT": fault}
    process = await asyncio.create_subprocess_exec(*command, env=dying, stdout=DEVNULL, stderr=DEVNULL)
    assert await process.wait() == -signal.SIGKILL
    async with open_desk(data) as desk:
        await desk.pipeline.ingest([text_file("a.txt", "Second words.")], Target("docs"))
        await desk.originals.sweep(older_than_s=-1)
        assert [path.read_bytes() for path in objects(desk)] == [b"Second words."]
        assert [piece async for piece in desk.originals.read(await stored(desk, "a.txt"))] == [b"Second words."]
