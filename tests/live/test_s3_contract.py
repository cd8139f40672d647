"""The contract of stores of originals, those very functions, on a real S3 server; and what a client of it must bear."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.base import NotFoundError, StoreUnavailableError
from server.originals import OriginalStore
from server.originals_s3 import S3Originals
from server.s3 import Encryption, Keys, Place, StoreDeniedError
from tests.contracts.test_originals import *  # noqa: F403 - whatever is tested there
from tests.contracts.test_originals import DESK, listed, name, read
from tests.live.s3 import KEYS, S3Server, opened, s3_server
from tests.live.servers import need


@pytest.fixture
async def store(object_server: S3Server) -> AsyncIterator[OriginalStore]:
    bucket = await object_server.new_bucket()
    async with opened(object_server.access()) as s3:
        yield S3Originals(s3, f"s3://{bucket}/kept/here", Encryption())


async def test_keys_of_every_kind_are_listed_and_read(object_server: S3Server) -> None:
    keys = ["plain.txt", "with space.txt", "größe/日本.txt", "a+b%20c&d=e?f#g.txt", "quote'\"<>.txt"]
    bucket = await object_server.new_bucket()
    await object_server.put(bucket, {key: key.encode() for key in keys})
    async with opened(object_server.access()) as s3:
        found = [one.key async for page in s3.list(Place(bucket, "")) for one in page]
        assert sorted(found) == sorted(keys)
        for key in keys:
            assert b"".join([piece async for piece in s3.read(Place(bucket, key))]) == key.encode()


async def test_a_prefix_is_kept_apart_from_one_that_begins_like_it(object_server: S3Server) -> None:
    bucket = await object_server.new_bucket()
    async with opened(object_server.access()) as s3:
        one, two = (S3Originals(s3, f"s3://{bucket}{prefix}", Encryption()) for prefix in ("/kept", ""))
        await one.put(name(1), b"one")
        await two.put(name(2), b"two")
        assert (await listed(one, f"{DESK}/ab"), await listed(two, f"{DESK}/ab")) == ({name(1): 3}, {name(2): 3})


@pytest.mark.parametrize(
    "keys", [replace(KEYS, secret="wrong"), Keys("nobody", "knows"), None], ids=["secret", "id", "unsigned"]
)
async def test_keys_that_are_refused_are_named(object_server: S3Server, keys: Keys | None) -> None:
    bucket = await object_server.new_bucket()
    async with opened(object_server.access(keys)) as s3:
        store = S3Originals(s3, f"s3://{bucket}", Encryption())
        for refused in (store.put(name(1), b"x"), read(store, name(1)), listed(store, DESK), store.delete([name(1)])):
            with pytest.raises(StoreDeniedError, match=r"denies us.*s3_access_key_file"):
                await refused


async def test_a_missing_bucket_is_named(object_server: S3Server) -> None:
    async with opened(object_server.access()) as s3:
        store = S3Originals(s3, "s3://no-such-bucket/x", Encryption())
        for failing in (store.put(name(1), b"x"), listed(store, DESK)):
            with pytest.raises(StoreUnavailableError, match="no bucket 'no-such-bucket'"):
                await failing
        with pytest.raises(NotFoundError):
            await read(store, name(1))


async def test_neither_the_environment_nor_a_home_is_asked(
    object_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = await object_server.new_bucket()
    misleading = {
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_PROFILE": "missing",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_CONFIG_FILE": "/no/such/file",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for variable, value in misleading.items():
        monkeypatch.setenv(variable, value)
    async with opened(object_server.access()) as s3:
        store = S3Originals(s3, f"s3://{bucket}", Encryption())
        await store.put(name(1), b"x")
        assert await read(store, name(1)) == b"x"


async def test_a_certificate_is_checked_against_the_authority_that_is_named(tmp_path: Path) -> None:
    made = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert"), "-days", "1", "-subj", "/CN=127.0.0.1"]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [need("openssl"), "req", *kind, *made]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    given = ("--cert", str(tmp_path / "cert"), "--key", str(tmp_path / "key"))
    with s3_server(tmp_path, *given) as server:
        trusting = replace(server.access(), endpoint=f"https://127.0.0.1:{server.port}", ca_file=tmp_path / "cert")
        async with opened(trusting) as s3:
            await s3._client.create_bucket(Bucket="sealed")
            await s3.put(Place("sealed", "x"), b"x", Encryption())
            assert [one.key async for page in s3.list(Place("sealed", "")) for one in page] == ["x"]
        async with opened(replace(trusting, ca_file=None)) as s3:
            with pytest.raises(StoreUnavailableError, match="SSLError"):
                await s3.put(Place("sealed", "y"), b"y", Encryption())
