"""PostgreSQL that ends, comes back, hangs, refuses, is slow or full, under a desk at work: nothing is lost or halved,
each failure is told as one of the catalog, and all is well again without a restart of the desk."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg
import pytest

from indexers.memory import MemoryIndex
from server.base import CatalogUnavailableError, Changes
from server.catalog import Catalog
from server.commit import Writer
from server.postgres import Postgres
from server.repair import repair
from tests.corpus import COLLECTION, prepare
from tests.desks import open_desk, open_http
from tests.live.postgres import PASSWORD, PostgresServer, postgres
from tests.live.proxy import Proxy


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """One that these tests may end; durable, as one in earnest is."""
    with postgres(max_connections="40") as server:
        yield server


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    return file


@dataclass
class Load:
    """Clients that upload and search without a pause, and what they were answered."""

    http: httpx2.AsyncClient
    uploaded: set[str] = field(default_factory=set)  # names whose upload was confirmed
    statuses: "Counter[tuple[str, int]]" = field(default_factory=Counter)
    codes: set[str] = field(default_factory=set)
    is_over: bool = False

    async def upload(self, client: int) -> None:
        number = 0
        while not self.is_over:
            name = f"{client}-{number}.txt"
            number += 1
            response = await self.http.post("/v1/documents", files={"file": (name, f"text of {name}".encode())})
            self._count("upload", response)
            if response.status_code == 201:
                self.uploaded.add(name)

    async def search(self) -> None:
        while not self.is_over:
            response = await self.http.post("/v1/search", json={"question": "Which text?"})
            self._count("search", response)

    def _count(self, kind: str, response: httpx2.Response) -> None:
        self.statuses[kind, response.status_code] += 1
        if response.status_code >= 400:
            self.codes.add(response.json()["error"]["code"])

    async def works(self, within_s: float = 30.0) -> None:
        """Wait until an upload and a search have succeeded from now on."""
        before = Counter(self.statuses)
        async with asyncio.timeout(within_s):
            for ok in (("upload", 201), ("search", 200)):
                while self.statuses[ok] <= before[ok]:  # noqa: ASYNC110 - polling is all that a test needs
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def under_load(folder: Path, url: str, password_file: Path) -> AsyncIterator[Load]:
    settings = {"catalog_url": url, "catalog_password_file": password_file, "catalog_timeout_s": 1.0}
    async with open_desk(folder / "data", **settings) as desk, open_http(desk) as http:
        load = Load(http)
        assert (await http.post("/v1/documents", files={"file": ("first.txt", b"text")})).status_code == 201
        async with asyncio.TaskGroup() as clients:
            for client in range(2):
                clients.create_task(load.upload(client))
                clients.create_task(load.search())
            try:
                await load.works()
                yield load
                await load.works()
            finally:
                load.is_over = True
        listed = (await http.get("/v1/documents", params={"limit": 1000})).json()["data"]
        assert load.uploaded <= {document["uri"] for document in listed}, "what was confirmed is there"
        repaired = await http.post("/v1/repair")
        assert repaired.status_code == 200, repaired.text
        found = repaired.json()["found"]
        unfinished = {kind for kind, count in found.items() if count}
        assert unfinished <= {"unfinished_commits", "unfinished_purges"}, "and nothing is half there"
        assert {status for _, status in load.statuses} <= {200, 201, 503}
        assert load.codes <= {"catalog_unavailable"}


async def test_a_server_that_is_stopped_and_started_under_load(
    own_server: PostgresServer, tmp_path: Path, password_file: Path
) -> None:
    url = own_server.url(own_server.new_database())
    async with under_load(tmp_path, url, password_file) as load:
        for end in (own_server.server.stop, own_server.server.kill):
            await asyncio.to_thread(end)
            await asyncio.sleep(1.5)
            await asyncio.to_thread(own_server.server.start)
            await load.works()
    assert load.statuses["search", 503]


async def test_a_server_that_hangs(own_server: PostgresServer, tmp_path: Path, password_file: Path) -> None:
    url = own_server.url(own_server.new_database())
    async with under_load(tmp_path, url, password_file) as load:
        own_server.server.pause()
        try:
            began = time.monotonic()
            response = await load.http.post("/v1/search", json={"question": "Which text?"})
            assert response.status_code == 503
            assert time.monotonic() - began < 6
            await asyncio.sleep(3)
        finally:
            own_server.server.resume()
        await load.works()


async def test_a_way_that_is_slow_cut_or_closed(
    own_server: PostgresServer, tmp_path: Path, password_file: Path
) -> None:
    with Proxy(own_server.port) as proxy:
        url = own_server.url(own_server.new_database(), proxy.port)
        async with under_load(tmp_path, url, password_file) as load:
            proxy.delay_s = 0.05
            await load.works()
            proxy.delay_s = 0.0
            for _ in range(5):
                proxy.cut()
                await load.works()
            proxy.refuses = True
            proxy.cut()
            await asyncio.sleep(0.5)
            assert (await load.http.post("/v1/search", json={"question": "?"})).status_code == 503
            proxy.refuses = False
            await load.works()


async def test_a_server_without_connections_to_give(
    own_server: PostgresServer, tmp_path: Path, password_file: Path
) -> None:
    url = own_server.url(own_server.new_database())
    taken = []
    async with under_load(tmp_path, url, password_file) as load:
        try:
            with suppress(psycopg.OperationalError):
                for _ in range(100):
                    taken.append(psycopg.connect(own_server.url(), password=PASSWORD))
            assert len(taken) < 100
            with pytest.raises(CatalogUnavailableError, match="max_connections"):
                await Catalog.open(Postgres(url, PASSWORD))
            await load.works()  # who has connections keeps them
        finally:
            for connection in taken:
                connection.close()
        await (await Catalog.open(Postgres(url, PASSWORD))).close()


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of this size that PostgreSQL may write to; skips where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="refdesk-disk-"))
    options = f"size={size},mode=0700,uid=nobody"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False)
    try:
        if mounted.returncode != 0:
            pytest.skip("needs the right to mount a small disk")
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


async def outcome(work: Awaitable[int]) -> int | Exception:
    try:
        return await work
    except Exception as exc:
        return exc


async def test_a_full_disk(own_server: PostgresServer) -> None:
    with small_disk("16m") as disk:
        own_server.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        own_server.execute("CREATE DATABASE full_soon TABLESPACE small")
        catalog = await Catalog.open(Postgres(own_server.url("full_soon"), PASSWORD))
        writer = Writer(catalog, index := MemoryIndex(), token_bits_of="", retention_s=0)
        await catalog.create_collection(COLLECTION)
        state = await catalog.namespace("docs", "default", create=True)
        documents = [prepare(f"{n}.txt", os.urandom(700_000).hex(), chunk_chars=140_000) for n in range(14)]
        outcomes = [await outcome(writer.commit(state, Changes([each]))) for each in documents]
        committed = sum(isinstance(number, int) for number in outcomes)
        refused = [str(error) for error in outcomes if isinstance(error, CatalogUnavailableError)]
        assert committed
        assert refused
        assert all("No space left on device" in said for said in refused)
        assert await catalog.statistics(state.id) == (committed, 10 * committed)
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=96m", str(disk)], check=True)
        for each in documents:
            await writer.commit(state, Changes([each]))
        assert await catalog.statistics(state.id) == (len(documents), 10 * len(documents))
        assert (await repair(catalog, index, writer)).found_nothing
        await writer.close()
        await catalog.close()
        own_server.execute("DROP DATABASE full_soon")
        own_server.execute("DROP TABLESPACE small")
