"""An ingestion beside other writers, and what a source held once and holds no more."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from indexers.base import at_once
from indexers.sources import Upload
from server.build import Desk
from server.ingest import Target
from tests.desks import open_desk, text_file

TARGET = Target("docs")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as desk:
        yield desk


async def stored(desk: Desk) -> dict[str, tuple[str, dict[str, object]]]:
    """Text and metadata of each document, by uri."""
    state = await desk.catalog.namespace("docs", "default")
    page, _ = await desk.catalog.documents(state.id)
    return {one.uri: (await desk.catalog.text(one.id), dict(one.metadata)) for one in page}


async def original(desk: Desk, uri: str) -> bytes:
    state = await desk.catalog.namespace("docs", "default")
    page, _ = await desk.catalog.documents(state.id)
    (name,) = [one.original for one in page if one.uri == uri]
    return b"".join([piece async for piece in desk.originals.read(name)])


def once(work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    """What happens before the first commit, and before no other."""
    left = [work]

    async def before() -> None:
        while left:
            await left.pop()()

    return before


def lines(*texts: str, **metadata: object) -> Upload:
    return text_file("f.jsonl", "\n".join(json.dumps({"text": text, "metadata": metadata}) for text in texts))


@pytest.mark.parametrize(
    "same", ["alpha one\n", "alpha one\r\n"], ids=["other metadata", "other bytes of the same text"]
)
async def test_a_patch_that_another_writer_overtook_changes_nothing(desk: Desk, same: str) -> None:
    """Else the new text would stand under the old bytes' hash, and never be read again."""
    await desk.pipeline.ingest([text_file("a.txt", "alpha one\n")], TARGET)
    other = once(lambda: desk.pipeline.ingest([text_file("a.txt", "alpha two")], TARGET))
    await desk.pipeline.ingest([text_file("a.txt", same)], Target("docs", metadata={"y": 1.0}), before_commit=other)
    assert await stored(desk) == {"a.txt": ("alpha two", {})}
    assert await original(desk, "a.txt") == b"alpha two"
    receipt = await desk.pipeline.ingest([text_file("a.txt", same)], TARGET)
    assert receipt.tally.replaced == 1
    assert (await stored(desk))["a.txt"][0].strip() == "alpha one"
    assert await original(desk, "a.txt") == same.encode()


async def test_a_document_deleted_meanwhile_stops_no_other(desk: Desk) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "alpha"), text_file("b.txt", "beta")], TARGET)
    state = await desk.catalog.namespace("docs", "default")
    (first, _), _ = await desk.catalog.documents(state.id)
    delete = once(lambda: desk.pipeline.delete_named(state, [first.id], None))
    files = [text_file("a.txt", "alpha"), text_file("b.txt", "beta"), text_file("c.txt", "gamma")]
    await desk.pipeline.ingest(files, Target("docs", metadata={"y": 1.0}), before_commit=delete)
    assert await stored(desk) == {"b.txt": ("beta", {"y": 1.0}), "c.txt": ("gamma", {"y": 1.0})}


async def test_metadata_that_the_index_refuses_stops_no_other(desk: Desk) -> None:
    await desk.pipeline.ingest([text_file("a.txt", "alpha"), lines("one", **{f"n{i}": i for i in range(999)})], TARGET)
    two = Target("docs", metadata={"x": 1.0, "y": 2.0})
    receipt = await desk.pipeline.ingest([text_file("a.txt", "alpha")], two)
    assert [(failure.source, failure.reason) for failure in receipt.tally.failures] == [("a.txt", "unsupported")]
    more = [text_file("a.txt", "alpha"), text_file("b.txt", "beta")]
    receipt = await desk.pipeline.ingest(more, Target("docs", metadata={"x": 1.0}))
    assert (receipt.tally.patched, receipt.tally.added, receipt.tally.failures) == (1, 1, [])


async def test_what_a_file_holds_no_more_is_deleted(desk: Desk) -> None:
    """The same name again replaces the file, and so its lines."""
    other = text_file("f.jsonl#notes.txt", "of another file")
    await desk.pipeline.ingest([lines("fact 0", "fact 1", "fact 2", "fact 3"), other], TARGET)
    broken = text_file("f.jsonl", '{"text": "fact 1"}\n{"text": \n{"text": "fact 3"}')
    receipt = await desk.pipeline.ingest([broken], TARGET)
    assert receipt.tally.pruned == 1
    found = {uri: text for uri, (text, _) in (await stored(desk)).items()}
    assert found == {
        "f.jsonl#1": "fact 1",
        "f.jsonl#2": "fact 1",  # what could not be read is not gone
        "f.jsonl#3": "fact 3",
        "f.jsonl#notes.txt": "of another file",
    }
    state = await desk.catalog.namespace("docs", "default")
    assert [failure.uri for failure in (await desk.catalog.failures(state.id))[0]] == ["f.jsonl#2"]
    await desk.pipeline.ingest([lines("fact 1")], TARGET)
    assert sorted(await stored(desk)) == ["f.jsonl#1", "f.jsonl#notes.txt"]
    assert await desk.catalog.failures(state.id) == ([], None)


async def test_metadata_is_what_the_source_and_the_ingestion_say(desk: Desk) -> None:
    await desk.pipeline.ingest([lines("alpha", draft=True, team="hr")], TARGET)
    await desk.pipeline.ingest([lines("alpha", team="hr")], TARGET)
    assert await stored(desk) == {"f.jsonl#1": ("alpha", {"team": "hr"})}
    await desk.pipeline.ingest([lines("alpha", team="hr")], Target("docs", metadata={"year": 2026.0}))
    await desk.pipeline.ingest([lines("alpha", team="hr")], TARGET, before_commit=at_once)
    assert await stored(desk) == {"f.jsonl#1": ("alpha", {"team": "hr", "year": 2026.0})}  # the same bytes: it stays
    await desk.pipeline.ingest([lines("alpha", team="it")], TARGET)
    assert await stored(desk) == {"f.jsonl#1": ("alpha", {"team": "it"})}


async def test_the_old_bytes_make_a_failure_forgotten(desk: Desk) -> None:
    for words in ("alpha", "", "alpha"):
        await desk.pipeline.ingest([text_file("a.txt", words)], TARGET)
    state = await desk.catalog.namespace("docs", "default")
    assert await desk.catalog.failures(state.id) == ([], None)
