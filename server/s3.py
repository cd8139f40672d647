"""An S3 server: objects put, read, listed and removed; what it says of failures, as the server's errors.

It is reached at the endpoint that the settings name, with the keys that they name: neither the environment nor an
instance's metadata is asked. Failed attempts are repeated by botocore (standard mode: backoff, jitter, a quota).
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from server.base import NotFoundError, StoreUnavailableError
from server.settings import S3_URL

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

ATTEMPTS = 3
CONNECTIONS = 32
PIECE_BYTES = 256 * 1024
SLOWEST_BYTES_S = 2**20  # an upload slower than this has failed
BACKOFF_S = 5.0  # between the attempts, at most
_NO_FILES = {  # a session's variables: (name in a file, name in the environment, value, conversion)
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
_DENIED = frozenset({401, 403})
_DENYING = frozenset({"XAdminUserNotFound"})  # the Versity gateway's 404 for a key's id that it does not know
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})  # the last: an answer to HEAD has no code
_OVERLOADED = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Keys:
    """Who we are."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached. No `keys`: requests are not signed. `timeout_s` bounds its silence, not a download."""

    endpoint: str
    region: str = "us-east-1"
    keys: Keys | None = None
    ca_file: Path | None = None
    path_style: bool = True
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Encryption:
    """What is asked of the server when it stores an object."""

    kind: Literal["none", "AES256", "aws:kms"] = "none"
    key_id: str = ""

    def parameters(self) -> Mapping[str, str]:
        if self.kind == "none":
            return {}
        return {"ServerSideEncryption": self.kind, **({"SSEKMSKeyId": self.key_id} if self.key_id else {})}


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and a prefix or a key in it."""

    bucket: str
    key: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Of `s3://bucket/key`. Raises ValueError."""
        found = S3_URL.fullmatch(url)
        if found is None:
            raise ValueError(f"{url!r} is no s3://bucket/prefix")
        return cls(found["bucket"], found["key"] or "")


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing; `stored_at` in Unix time."""

    key: str
    size_bytes: int
    etag: str
    stored_at: float


class StoreDeniedError(StoreUnavailableError):
    """The server knows us not, or does not let us."""


class S3:
    """A client. Every method raises StoreUnavailableError if the server fails or refuses us; NotFoundError for a bucket
    that is not there."""

    def __init__(self, client: "S3Client", opened: AsyncExitStack, timeout_s: float) -> None:
        self._client, self._opened, self._timeout_s = client, opened, timeout_s

    @classmethod
    async def connect(cls, access: Access) -> Self:
        """A client of a server that is not asked anything yet. Raises StoreUnavailableError for a wrong ca_file."""
        from aiobotocore.config import AioConfig
        from aiobotocore.session import AioSession
        from botocore import UNSIGNED
        from botocore.handlers import add_expect_header

        keys = access.keys or Keys("anonymous", "anonymous")  # without any, botocore would go and look for some
        config = AioConfig(
            signature_version=UNSIGNED if access.keys is None else "s3v4",
            connect_timeout=access.timeout_s,
            read_timeout=access.timeout_s,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            proxies={},  # not those of the environment either
            # its checksums' trailers are refused by many a server; the signature covers the bytes
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if access.path_style else "virtual", "payload_signing_enabled": True},
        )
        async with AsyncExitStack() as opened:
            client = await opened.enter_async_context(
                AioSession(session_vars=_NO_FILES).create_client(
                    "s3",
                    region_name=access.region,
                    endpoint_url=access.endpoint,
                    verify=str(access.ca_file) if access.ca_file else True,
                    aws_access_key_id=keys.id,
                    aws_secret_access_key=keys.secret,
                    config=config,
                )
            )
            # for the 100 that it asks for, aiohttp would wait as long as a server hangs
            client.meta.events.unregister("before-call.s3", add_expect_header)
            return cls(client, opened.pop_all(), access.timeout_s)

    async def close(self) -> None:
        await self._opened.aclose()

    async def put(self, place: Place, data: bytes, encryption: Encryption) -> None:
        """Store an object: in one request, so that it is there whole or not at all."""
        # aiohttp times how long it reads, not how long it writes
        with _mapped(place):
            async with asyncio.timeout(ATTEMPTS * (self._timeout_s + len(data) / SLOWEST_BYTES_S) + BACKOFF_S):
                await self._client.put_object(
                    Bucket=place.bucket,
                    Key=place.key,
                    Body=data,
                    ContentType="application/octet-stream",
                    **encryption.parameters(),  # type: ignore[arg-type]
                )

    async def read(self, place: Place) -> AsyncGenerator[bytes, None]:
        """An object's bytes in pieces. Raises NotFoundError before the first."""
        with _mapped(place):
            found = await self._client.get_object(Bucket=place.bucket, Key=place.key)
            async with found["Body"] as body:
                async for piece in body.iter_chunks(PIECE_BYTES):
                    yield piece

    async def find(self, place: Place) -> Listed | None:
        """What a listing would say of this very key; None if it is not there."""
        try:
            with _mapped(place):
                head = await self._client.head_object(Bucket=place.bucket, Key=place.key)
        except NotFoundError:
            return None
        stored_at = head["LastModified"].timestamp()
        return Listed(place.key, head["ContentLength"], head.get("ETag", ""), stored_at)

    async def list(self, place: Place) -> AsyncGenerator[Sequence[Listed], None]:
        """Pages of what begins with a prefix, by key."""
        with _mapped(Place(place.bucket, "")):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.key)
            async for page in pages:
                yield [
                    Listed(found["Key"], found["Size"], found.get("ETag", ""), found["LastModified"].timestamp())
                    for found in page.get("Contents", ())
                ]

    async def delete(self, places: Sequence[Place]) -> None:
        """Remove objects; one that is not there is passed by. A request each: of several at once, servers want
        checksums that others refuse."""
        turns = asyncio.Semaphore(CONNECTIONS // 2)

        async def remove(place: Place) -> None:
            async with turns:
                with _mapped(place):
                    await self._client.delete_object(Bucket=place.bucket, Key=place.key)

        await asyncio.gather(*map(remove, places))


@contextmanager
def _mapped(place: Place) -> Iterator[None]:
    """What the server or the way to it refuses, as our errors."""
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as exc:
        raise _answered(place, exc.response) from exc
    except (BotoCoreError, HttpError, OSError, TimeoutError) as exc:
        raise StoreUnavailableError(
            f"the S3 server did not answer for {_url(place)} ({type(exc).__name__}): it is away, overloaded or not "
            "where s3_endpoint says"
        ) from exc


def _answered(place: Place, response: Mapping[str, object]) -> NotFoundError | StoreUnavailableError:
    """The error that an answer other than 2xx stands for."""
    error, about = response.get("Error"), response.get("ResponseMetadata")
    code = str(error.get("Code", "")) if isinstance(error, Mapping) else ""
    status = about.get("HTTPStatusCode", 0) if isinstance(about, Mapping) else 0
    if code == "NoSuchBucket":
        return NotFoundError(f"there is no bucket {place.bucket!r} at the S3 server: make it, or correct its name")
    if code in _MISSING:
        return NotFoundError(f"there is no object {_url(place)}")
    if status in _DENIED or code in _DENYING:
        hint = "see s3_access_key_file and s3_secret_key_file, and what the bucket allows them"
        return StoreDeniedError(f"the S3 server denies us {_url(place)} ({code or status}): {hint}")
    if status in _OVERLOADED:
        return StoreUnavailableError(f"the S3 server is overloaded ({code or status}): {_url(place)} was tried in vain")
    return StoreUnavailableError(f"the S3 server failed at {_url(place)} ({status} {code})")


def _url(place: Place) -> str:
    return repr(f"s3://{place.bucket}/{place.key}")
