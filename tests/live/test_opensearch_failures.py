"""A real OpenSearch killed, stopped, hanging, slow, refusing and full under load: nothing is lost, nothing
half-visible, and recovery needs no restart of ours."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from indexers.base import CollectionSpec, IndexerError, IndexUnavailableError, Namespace
from indexers.legs import PairedIndex
from indexers.memory import MemoryIndex
from indexers.opensearch import OpenSearchIndex
from indexers.opensearch_client import Access
from indexers.opensearch_places import Layout
from server.repair import repair
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.corpus import prepare
from tests.live.legs import LATE_S, TIMEOUT_S, Work, ask, both_answer, found, until
from tests.live.opensearch import OpenSearch, opensearch
from tests.live.proxy import Proxy
from tests.live.servers import need


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearch]:
    """A node of this module's own, which it may kill."""
    with opensearch(tmp_path_factory.mktemp("opensearch")) as started:
        yield started


@pytest.fixture
def proxy(node: OpenSearch) -> Iterator[Proxy]:
    with Proxy.before(node.url) as running:
        yield running


def connect(url: str, **access: object) -> OpenSearchIndex:
    return OpenSearchIndex.connect(
        replace(Access([url], timeout_s=5), **access),  # type: ignore[arg-type]
        Layout(f"t{uuid4().hex[:8]}", replicas=0),
    )


@pytest.fixture
async def bench(proxy: Proxy, tmp_path: Path) -> AsyncIterator[Bench]:
    """Its text leg is OpenSearch behind the proxy."""
    index = PairedIndex(MemoryIndex(), connect(proxy.url))
    opened = await Bench.open(Sqlite(tmp_path / "catalog.sqlite", readers=2), index)
    yield opened
    await opened.close()
    await index.close()


def configure(node: OpenSearch, place: str, change: dict[str, object]) -> None:
    request = Request(f"{node.url}/{place}/_settings", json.dumps(change).encode(), method="PUT")
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("how", ["killed", "stopped", "hanging"])
async def test_under_load_it_goes_away_and_comes_back(bench: Bench, node: OpenSearch, how: str) -> None:
    assert isinstance(bench.index, PairedIndex)
    work, server = Work(bench, bench.index.dense), node.server
    away, back = {
        "killed": (server.kill, server.start),
        "stopped": (server.stop, server.start),
        "hanging": (server.pause, server.resume),
    }[how]
    async with work.going_on():
        await until(lambda: work.newest >= 5 and "bm25" in work.legs_seen)
        await asyncio.to_thread(away)
        await until(lambda: bool(work.degraded and (work.failures or how == "hanging")))
        await asyncio.to_thread(back)
        await work.goes_on()
    assert work.legs_seen == {"dense", "bm25"}
    assert all(line.startswith("bm25 leg of docs:default") for line in work.degraded), work.degraded
    assert all("OpenSearch" in str(failure) for failure in work.failures)
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


async def test_connections_cut_under_load(bench: Bench, proxy: Proxy) -> None:
    assert isinstance(bench.index, PairedIndex)
    work = Work(bench, bench.index.dense)
    async with work.going_on():
        for _ in range(10):
            await asyncio.sleep(0.2)
            proxy.cut()
        await work.goes_on()
    assert (await repair(bench.catalog, bench.index, bench.writer)).found_nothing


async def test_hanging_it_is_waited_for_no_longer_than_the_deadline(bench: Bench, node: OpenSearch) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    node.server.pause()
    try:
        started = time.monotonic()
        result = await ask(bench)
        assert TIMEOUT_S <= time.monotonic() - started < TIMEOUT_S + LATE_S
        assert result.degraded == (f"bm25 leg of docs:default: no answer within {TIMEOUT_S:g} s",)
        assert found(result, "dense")
        committing = asyncio.create_task(bench.commit(prepare("b.txt", "text of b")))
        await asyncio.sleep(1)
        assert not committing.done()
        assert (await bench.catalog.namespace("docs", "default")).commit == 1
    finally:
        node.server.resume()
    assert await committing == 2
    assert len(await both_answer(bench)) == 2


async def test_slow_it_is_done_without_and_used_again_when_it_is_fast(bench: Bench, proxy: Proxy) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    proxy.delay_s = 3 * TIMEOUT_S
    result = await ask(bench)
    assert (found(result, "bm25"), len(result.degraded)) == (None, 1)
    assert found(result, "dense")
    proxy.delay_s = 0.01
    await both_answer(bench)


async def test_a_client_that_leaves_takes_no_connection_with_it(bench: Bench, proxy: Proxy) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    proxy.delay_s = 30
    leaving = [asyncio.create_task(ask(bench)) for _ in range(50)]
    await asyncio.sleep(0.3)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    proxy.delay_s = 0
    proxy.cut()  # what was asked is still on its way
    await both_answer(bench)


# --- refusing ------------------------------------------------------------------------------------------------------


async def test_refusing_connections(bench: Bench, proxy: Proxy) -> None:
    await bench.commit(prepare("a.txt", "text of a"))
    proxy.refuses = True
    proxy.cut()
    result = await ask(bench, timeout_s=LATE_S)
    assert "OpenSearch does not answer" in result.degraded[0]
    with pytest.raises(IndexUnavailableError, match="opensearch_urls"):
        await bench.commit(prepare("b.txt", "text of b"))
    proxy.refuses = False
    assert len(await both_answer(bench)) == 1
    assert await bench.commit(prepare("b.txt", "text of b")) == 2
    assert len(await both_answer(bench)) == 2


@pytest.mark.parametrize(
    ("status", "headers", "attempts", "at_least_s"),
    [
        (b"503 Service Unavailable", b"", 5, 0.0),
        (b"429 Too Many Requests", b"Retry-After: 1\r\n", 5, 4.0),
        (b"403 Forbidden", b"", 1, 0.0),
        (b"400 Bad Request", b"", 1, 0.0),
    ],
)
async def test_what_is_refused_is_repeated_only_where_that_may_help(
    proxy: Proxy, status: bytes, headers: bytes, attempts: int, at_least_s: float
) -> None:
    index = connect(proxy.url)
    proxy.status, proxy.headers = status, headers
    started = time.monotonic()
    with pytest.raises(IndexUnavailableError, match="OpenSearch"):
        await index.flush(Namespace(CollectionSpec("docs", 8), "default"))
    assert proxy.requests == attempts
    assert time.monotonic() - started >= at_least_s
    await index.close()


# --- full ----------------------------------------------------------------------------------------------------------


async def test_a_disk_at_its_flood_stage(bench: Bench, node: OpenSearch) -> None:
    """It still answers, says why it takes no writes, and takes them again when there is room."""
    await bench.commit(prepare("a.txt", "text of a"))
    configure(node, "_all", {"index.blocks.read_only_allow_delete": True})  # what its monitor does then
    try:
        with pytest.raises(IndexUnavailableError, match="flood-stage"):
            await bench.commit(prepare("b.txt", "text of b"))
        assert len(await both_answer(bench)) == 1
    finally:
        configure(node, "_all", {"index.blocks.read_only_allow_delete": None})
    assert await bench.commit(prepare("b.txt", "text of b")) == 2
    assert len(await both_answer(bench)) == 2


# --- who we are ----------------------------------------------------------------------------------------------------


def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    made = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", *name]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


async def test_tls_and_a_password(node: OpenSearch, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = SSLContext(PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Proxy.before(node.url, tls=tls, credentials="refdesk:sésame-東京") as proxy:
        known = {"ca_file": certificate, "user": "refdesk", "password": "sésame-東京"}
        for access, message in (
            (known, None),
            ({**known, "ca_file": None}, "opensearch_ca_file"),
            ({**known, "password": "wrong"}, "opensearch_password_file"),
            ({**known, "user": ""}, "opensearch_user"),
        ):
            index = connect(proxy.url, **access)
            with nullcontext() if message is None else pytest.raises(IndexUnavailableError, match=message):
                assert await index.list("docs") == []
            await index.close()
    with pytest.raises(IndexerError, match="PEM"):
        connect(proxy.url, ca_file=key)
