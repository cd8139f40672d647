"""`refdesk ingest s3://…` from a real S3 server, to answers whose citations stand in the objects' own words."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from indexers.base import UnreadableError
from server.base import InvalidRequestError, NotFoundError, StoreUnavailableError
from server.build import Desk
from server.cli import run_command
from server.ingest import Receipt, Target
from server.s3_sources import s3_sources
from tests.desks import GUIDE, LOCAL_TOKEN, NOTES, QUESTION, open_desk, open_http
from tests.live.s3 import S3Server, settings_for

LINES = b'{"text": "The first line is about pumps."}\n{"text": "The second one is about ships."}\n'


@pytest.fixture
async def bucket(object_server: S3Server) -> str:
    name = await object_server.new_bucket()
    await object_server.put(
        name,
        {
            "handbook/guide.md": GUIDE.encode(),
            "handbook/harbour/notes.md": NOTES.encode(),
            "handbook/lines.jsonl": LINES,
            "handbook/.hidden/secret.md": b"# Hidden\n\nNobody reads this.",
            "handbook/~$guide.docx": b"a lock file",
            "handbook2/other.md": b"# Other\n\nA prefix that begins alike.",
        },
    )
    return name


@pytest.fixture
async def desk(object_server: S3Server, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path / "data", **settings_for(object_server, tmp_path)) as opened:
        yield opened


async def ingest(desk: Desk, url: str, **target: Any) -> Receipt:
    return await desk.pipeline.ingest(s3_sources(desk.s3, url), Target("docs", **target))


async def uris(desk: Desk) -> set[str]:
    page, _ = await desk.catalog.documents((await desk.catalog.namespace("docs", "default")).id)
    return {document.uri for document in page}


async def test_a_prefix_is_read_like_a_folder(desk: Desk, bucket: str) -> None:
    receipt = await ingest(desk, f"s3://{bucket}/handbook")
    assert await uris(desk) == {"guide.md", "harbour/notes.md", "lines.jsonl#1", "lines.jsonl#2"}
    assert (receipt.tally.added, receipt.tally.failures) == (4, [])
    async with open_http(desk) as http:
        body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
        answer = (await http.post("/v1/chat/completions", json=body)).json()
        quoted = [citation["quote"] for citation in answer["citations"]]
        assert quoted
        assert all(quote in GUIDE + NOTES for quote in quoted)
        original = await http.get(f"/v1/documents/{answer['citations'][0]['document_id']}/original")
        assert original.content in (GUIDE.encode(), NOTES.encode())


async def test_what_is_unchanged_is_not_fetched_and_what_changed_is(
    object_server: S3Server, desk: Desk, bucket: str
) -> None:
    await ingest(desk, f"s3://{bucket}/handbook")
    again = await ingest(desk, f"s3://{bucket}/handbook/")
    assert (again.tally.unchanged, again.tally.bytes) == (4, len(LINES)), "of a JSONL file every line has to be seen"
    await object_server.put(bucket, {"handbook/guide.md": GUIDE.replace("six", "nine").encode()})
    changed = await ingest(desk, f"s3://{bucket}/handbook")
    assert (changed.tally.replaced, changed.tally.unchanged) == (1, 3)
    await object_server.put(bucket, {"handbook/guide.md": GUIDE.replace("six", "nine").encode()})
    same = await ingest(desk, f"s3://{bucket}/handbook")
    assert (same.tally.replaced, same.tally.unchanged) == (0, 4), "written again with the same bytes"


async def test_prune_removes_what_is_gone_and_nothing_if_the_listing_fails(
    object_server: S3Server, desk: Desk, bucket: str, tmp_path: Path
) -> None:
    await ingest(desk, f"s3://{bucket}/handbook")
    for url, error in (
        (f"s3://{bucket}/handbok", UnreadableError),
        ("s3://no-such-bucket/handbook", NotFoundError),
    ):
        with pytest.raises(error):
            await ingest(desk, url, prune=True)
    assert len(await uris(desk)) == 4
    await object_server.remove(bucket, "handbook/guide.md", "handbook/lines.jsonl")
    receipt = await ingest(desk, f"s3://{bucket}/handbook", prune=True)
    assert (receipt.tally.pruned, await uris(desk)) == (3, {"harbour/notes.md"})


async def test_one_object_and_a_whole_bucket(desk: Desk, bucket: str) -> None:
    await ingest(desk, f"s3://{bucket}/handbook/harbour/notes.md")
    assert await uris(desk) == {"notes.md"}
    receipt = await ingest(desk, f"s3://{bucket}", prune=True)
    assert receipt.tally.pruned == 1
    assert {"handbook/guide.md", "handbook2/other.md"} < await uris(desk)


async def test_objects_that_cannot_be_read_are_named_and_stop_nothing(
    object_server: S3Server, desk: Desk, bucket: str
) -> None:
    await object_server.put(bucket, {"handbook/a.pdf": b"%PDF-1.7 broken", "handbook/big.txt": b"x" * 300_000})
    small = desk.settings.model_copy(update={"max_upload_bytes": 200_000})
    desk.pipeline.settings = small
    receipt = await ingest(desk, f"s3://{bucket}/handbook")
    reasons = {failure.source: failure.reason for failure in receipt.tally.failures}
    assert reasons["big.txt"] == "too large"
    assert set(reasons) == {"a.pdf", "big.txt"}
    assert receipt.tally.added == 4


async def test_an_object_removed_after_it_was_listed_is_named(object_server: S3Server, desk: Desk, bucket: str) -> None:
    found = [one async for one in s3_sources(desk.s3, f"s3://{bucket}/handbook")]
    await object_server.remove(bucket, "handbook/guide.md")
    with pytest.raises(UnreadableError, match="removed after it was listed"):
        await next(one for one in found if one.uri == "guide.md").fetch(10_000)


async def test_hundreds_of_objects_are_read_ahead_and_in_order(
    object_server: S3Server, desk: Desk, bucket: str
) -> None:
    names = [f"many/{number:04}.txt" for number in range(300)]
    await object_server.put(bucket, {name: f"Words of {name}.".encode() for name in names})
    receipt = await ingest(desk, f"s3://{bucket}/many")
    assert receipt.tally.added == 300
    state = await desk.catalog.namespace("docs", "default")
    found = await desk.catalog.lookup(state.id, [name.removeprefix("many/") for name in names])
    for name in names[::37]:
        assert await desk.catalog.text(found[name.removeprefix("many/")].id) == f"Words of {name}."


async def test_wrong_addresses_say_what_is_wrong(desk: Desk, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no s3://bucket/prefix"):
        await ingest(desk, "s3://Not_A_Bucket/x")
    async with open_desk(tmp_path / "plain") as plain:
        with pytest.raises(InvalidRequestError, match="set s3_endpoint"):
            await ingest(plain, f"s3://{bucket}/handbook")


async def test_keys_that_are_refused_stop_the_ingestion(object_server: S3Server, bucket: str, tmp_path: Path) -> None:
    settings = settings_for(object_server, tmp_path)
    (tmp_path / "s3_secret_key_file").write_text("wrong")
    async with open_desk(tmp_path / "data", **settings) as desk:
        with pytest.raises(StoreUnavailableError, match="denies us"):
            await ingest(desk, f"s3://{bucket}/handbook")


async def test_the_local_route_takes_an_address_and_only_from_this_machine(desk: Desk, bucket: str) -> None:
    async with open_http(desk, LOCAL_TOKEN) as http:
        reply = await http.post("/v1/local/ingest", json={"path": f"s3://{bucket}/handbook"})
        assert '"added":4' in reply.text
        reply = await http.post("/v1/local/ingest", json={"path": "s3://no-such-bucket/handbook"})
        assert "there is no bucket 'no-such-bucket'" in reply.text


async def test_the_command_line(
    object_server: S3Server, bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(object_server, tmp_path, data_dir=tmp_path / "data", embedder="fake", generator="fake")
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    assert await asyncio.to_thread(run_command, [*given, "ingest", f"s3://{bucket}/handbook"]) == 0
    assert await asyncio.to_thread(run_command, [*given, "search", QUESTION]) == 0
    assert "serviced every six months" in capfd.readouterr().out
    assert await asyncio.to_thread(run_command, [*given, "ingest", "s3://no-such-bucket/x"]) == 1
    assert "there is no bucket 'no-such-bucket'" in capfd.readouterr().err
