"""What a real OpenSearch refuses, and why: too much at once, a full disk, a stranger. Of one that goes away or is slow,
see test_leg_failures.py."""

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
from server.sqlite import Sqlite
from tests.commit_bench import Bench
from tests.corpus import prepare
from tests.live.legs import both_answer
from tests.live.opensearch import OpenSearch
from tests.live.proxy import Proxy
from tests.live.servers import need


@pytest.fixture
def proxy(search_node: OpenSearch) -> Iterator[Proxy]:
    with Proxy.before(search_node.url) as running:
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


async def test_a_disk_at_its_flood_stage(bench: Bench, search_node: OpenSearch) -> None:
    """It still answers, says why it takes no writes, and takes them again when there is room."""
    await bench.commit(prepare("a.txt", "text of a"))
    configure(search_node, "_all", {"index.blocks.read_only_allow_delete": True})  # what its monitor does then
    try:
        with pytest.raises(IndexUnavailableError, match="flood-stage"):
            await bench.commit(prepare("b.txt", "text of b"))
        assert len(await both_answer(bench)) == 1
    finally:
        configure(search_node, "_all", {"index.blocks.read_only_allow_delete": None})
    assert await bench.commit(prepare("b.txt", "text of b")) == 2
    assert len(await both_answer(bench)) == 2


def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    made = [need("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", *name]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


async def test_tls_and_a_password(search_node: OpenSearch, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = SSLContext(PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Proxy.before(search_node.url, tls=tls, credentials="refdesk:sésame-東京") as proxy:
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
