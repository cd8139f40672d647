"""An S3 server that ends, comes back, hangs, is slow, cuts, refuses or is full, under a desk with its originals there:
nothing is lost or half visible, searching does not notice, and all is well again without a restart of the desk."""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import ClientConnectionResetError

from server import catalog_originals
from server.base import SearchRequest, StoreUnavailableError
from server.build import Desk
from server.ingest import Receipt, Target
from server.repair import repair
from server.s3_sources import s3_sources
from server.sweeper import sweep_originals
from tests.desks import open_desk, open_http, text_file
from tests.live.proxy import Proxy
from tests.live.s3 import KEYS, S3Server, s3_server, settings_for
from tests.live.test_postgres_failures import small_disk

FILLING = os.urandom(3_000_000).hex()  # of a page whose bytes are many and whose words are few


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One that these tests may end."""
    with s3_server(tmp_path_factory.mktemp("own-s3")) as server:
        yield server


@asynccontextmanager
async def desk_on(server: S3Server, folder: Path, *, port: int | None = None) -> AsyncIterator[Desk]:
    """A desk with a document, whose original is in a bucket of its own."""
    url = f"s3://{await server.new_bucket()}/originals"
    settings = settings_for(server, folder, port, originals_url=url, s3_timeout_s=1.0)
    async with open_desk(folder / "data", **settings) as desk:
        await ingest(desk, "old.txt", "The old pump is serviced monthly.")
        yield desk


async def ingest(desk: Desk, name: str, words: str) -> Receipt:
    return await desk.pipeline.ingest([text_file(name, words)], Target("docs"))


async def ingest_large(desk: Desk, name: str, size_bytes: int = 6_000_000) -> Receipt:
    return await ingest(desk, name, f"<html><body><p>Words of {name}.</p><!-- {FILLING[:size_bytes]} --></body></html>")


async def works(desk: Desk, *names: str) -> None:
    """These documents are there with their originals, and nothing else is, in the bucket either."""
    state = await desk.catalog.namespace("docs", "default")
    documents, _ = await desk.catalog.documents(state.id, limit=1000)
    assert {document.uri for document in documents} == set(names)
    for document in documents:
        original = b"".join([piece async for piece in desk.originals.read(document.original)])
        assert hashlib.sha256(original).hexdigest() == document.source_sha256
    assert (await repair(desk.catalog, desk.index, desk.writer, desk.originals)).found_nothing
    assert await desk.originals.sweep(older_than_s=-60) == 0


async def search_works(desk: Desk) -> None:
    found = await desk.pipeline.search(SearchRequest("old pump serviced", "docs"))
    assert [hit.chunk.uri for hit in found.hits][:1] == ["old.txt"]
    assert not found.degraded


async def lost(desk: Desk) -> list[str]:
    return await desk.catalog.read(catalog_originals.lost, 100)


async def refused(desk: Desk) -> str:
    """What is said to an ingestion that the store fails; nothing of it becomes visible."""
    before = await desk.catalog.namespace("docs", "default")
    with pytest.raises(StoreUnavailableError) as caught:
        await ingest(desk, "new.txt", "The new pump is serviced yearly.")
    assert (await desk.catalog.namespace("docs", "default")).commit == before.commit
    await search_works(desk)
    return str(caught.value)


async def test_it_ends_and_comes_back(own_server: S3Server, tmp_path: Path) -> None:
    async with desk_on(own_server, tmp_path) as desk:
        for end in (own_server.server.stop, own_server.server.kill):
            await asyncio.to_thread(end)
            assert "did not answer" in await refused(desk)
            async with open_http(desk) as http:
                documents = (await http.get("/v1/documents")).json()["data"]
                response = await http.get(f"/v1/documents/{documents[0]['id']}/original")
                assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
            await asyncio.to_thread(own_server.server.start)
            await works(desk, "old.txt")
        await ingest(desk, "new.txt", "The new pump is serviced yearly.")
        await works(desk, "old.txt", "new.txt")


async def test_a_delete_while_it_is_away_is_made_good_later(own_server: S3Server, tmp_path: Path) -> None:
    async with desk_on(own_server, tmp_path) as desk:
        receipt = await ingest(desk, "secret.txt", "Secret words.")
        state = await desk.catalog.namespace("docs", "default")
        await asyncio.to_thread(own_server.server.stop)
        try:
            await desk.pipeline.delete_named(state, receipt.document_ids, None)
            assert len(await lost(desk)) == 1
            assert await sweep_originals(desk.originals, orphans=False) == 0
        finally:
            await asyncio.to_thread(own_server.server.start)
        assert await sweep_originals(desk.originals, orphans=False) == 1
        assert await lost(desk) == []
        await works(desk, "old.txt")


async def test_it_hangs(own_server: S3Server, tmp_path: Path) -> None:
    async with desk_on(own_server, tmp_path) as desk:
        receipt = await ingest(desk, "secret.txt", "Secret words.")
        state = await desk.catalog.namespace("docs", "default")
        own_server.server.pause()
        try:
            started = time.monotonic()
            await desk.pipeline.delete_named(state, receipt.document_ids, None)
            assert time.monotonic() - started < 5, "a delete waits two seconds at most for its store"
            started = time.monotonic()
            assert "did not answer" in await refused(desk)
            assert time.monotonic() - started < 20
        finally:
            own_server.server.resume()
        async with asyncio.timeout(20):
            while await lost(desk):
                await sweep_originals(desk.originals, orphans=False)
        await desk.originals.sweep(older_than_s=-60)  # a request that was given up may have been carried out
        await works(desk, "old.txt")


def _pass_by_resets(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiohttp 3.14 also tells the loop of a connection that it finds closed when it writes; its caller hears of it."""
    if not isinstance(context.get("exception"), ClientConnectionResetError):
        loop.default_exception_handler(context)


async def test_it_is_slow_and_connections_are_cut(own_server: S3Server, tmp_path: Path) -> None:
    with Proxy(own_server.port) as proxy:
        async with desk_on(own_server, tmp_path, port=proxy.port) as desk:
            asyncio.get_running_loop().set_exception_handler(_pass_by_resets)
            proxy.delay_s = 0.3
            await ingest(desk, "slow.txt", "Slowly stored words.")
            proxy.delay_s = 0.0
            proxy.cut()
            await ingest(desk, "cut.txt", "Words stored after a cut.")
            await ingest_large(desk, "large.html")
            state = await desk.catalog.namespace("docs", "default")
            large = (await desk.catalog.lookup(state.id, ["large.html"]))["large.html"]
            proxy.delay_s = 0.05
            pieces = desk.originals.read(large.original)
            await anext(pieces)
            proxy.cut()
            with pytest.raises(StoreUnavailableError, match="did not answer"):  # never an end that looks like one
                async for _ in pieces:
                    pass
            proxy.delay_s = 0.0
            proxy.refuses = True
            proxy.cut()
            await refused(desk)
            proxy.refuses = False
            await works(desk, "old.txt", "slow.txt", "cut.txt", "large.html")


async def test_a_download_that_breaks_off_is_no_whole_reply(own_server: S3Server, tmp_path: Path) -> None:
    with Proxy(own_server.port) as proxy:
        async with desk_on(own_server, tmp_path, port=proxy.port) as desk:
            receipt = await ingest_large(desk, "large.html")
            proxy.delay_s = 0.05
            async with open_http(desk) as http:
                cutting = asyncio.get_running_loop().call_later(0.5, proxy.cut)
                with pytest.raises((ConnectionError, httpx2.HTTPError)):
                    await http.get(f"/v1/documents/{receipt.document_ids[0]}/original")
                cutting.cancel()


async def test_an_ingestion_from_it_stops_where_it_ends_and_goes_on_from_there(
    own_server: S3Server, tmp_path: Path
) -> None:
    bucket = await own_server.new_bucket()
    names = [f"many/{number:03}.txt" for number in range(200)]
    await own_server.put(bucket, {name: f"Words of {name}.".encode() for name in names})
    async with desk_on(own_server, tmp_path) as desk:
        desk.pipeline.settings = desk.settings.model_copy(update={"commit_documents": 8})
        committed = asyncio.Event()
        url, target = f"s3://{bucket}/many", Target("docs", prune=True)
        running = asyncio.create_task(
            desk.pipeline.ingest(
                s3_sources(desk.s3, url), target, lambda tally: committed.set() if tally.added else None
            )
        )
        async with asyncio.timeout(60):
            await committed.wait()
        await asyncio.to_thread(own_server.server.kill)
        with pytest.raises(StoreUnavailableError):
            await running
        await search_works(desk)  # nothing was pruned
        await asyncio.to_thread(own_server.server.start)
        receipt = await desk.pipeline.ingest(s3_sources(desk.s3, url), target)
        assert 0 < receipt.tally.unchanged < 200
        assert receipt.tally.unchanged + receipt.tally.added == 200
        await desk.originals.sweep(older_than_s=-60)
        await works(desk, *(name.removeprefix("many/") for name in names))


async def test_keys_that_are_withdrawn_and_given_back(own_server: S3Server, tmp_path: Path) -> None:
    async with desk_on(own_server, tmp_path) as desk:
        given = dict(own_server.server.environment)
        for environment in ({**given, "ROOT_SECRET_KEY": "another"}, given):
            await asyncio.to_thread(own_server.server.stop)
            own_server.server.environment = environment
            await asyncio.to_thread(own_server.server.start)
            if environment != given:
                said = await refused(desk)
                assert "denies us" in said
                assert KEYS.secret not in said
        await works(desk, "old.txt")


async def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk("8m") as disk, s3_server(tmp_path / "server", root=disk) as server:
        async with desk_on(server, tmp_path) as desk:
            kept, errors = ["old.txt"], []
            for name in [f"{number}.html" for number in range(8)]:
                try:
                    await ingest_large(desk, name, 2 * 2**20)
                    kept.append(name)
                except StoreUnavailableError as exc:
                    errors.append(str(exc))
            assert 1 < len(kept) < 6
            assert len(errors) == 9 - len(kept)
            await search_works(desk)
            await works(desk, *kept)
            await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=64m", str(disk)], check=True)
            await ingest_large(desk, "more.html", 2 * 2**20)
            await works(desk, *kept, "more.html")
