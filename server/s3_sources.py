"""`s3://bucket/prefix` as a source of documents: its objects in the order of their keys, each under its relative name.

What a folder's sources leave out is left out here: hidden parts (".git"), Office's lock files, folders' own objects.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from indexers.base import UnreadableError
from server.base import InvalidRequestError, NotFoundError
from server.s3 import S3, Listed, Place, StoreDeniedError

_LEFT_OUT = re.compile(r"(^|/)(\.|~\$)|/$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # of these PostgreSQL stores no NUL, and no page shows the others


@dataclass(frozen=True, slots=True)
class S3Object:
    """Implements indexers.sources.RemoteSource."""

    uri: str
    place: Place
    listed: Listed
    s3: S3

    @property
    def size_bytes(self) -> int:
        return self.listed.size_bytes

    @property
    def mark(self) -> str:
        """The ETag, which any write of other bytes changes, and the size; where a server gives none, the time."""
        return f"{self.listed.etag or self.listed.stored_at} {self.listed.size_bytes}"

    async def fetch(self, max_bytes: int) -> bytes:
        if _CONTROL.search(self.uri):
            raise UnreadableError(self.uri, "unsupported", "its name holds control characters; rename it")
        if self.size_bytes > max_bytes:
            raise self._too_large(max_bytes)
        data = bytearray()
        try:
            async with aclosing(self.s3.read(self.place)) as pieces:
                async for piece in pieces:
                    data += piece
                    if len(data) > max_bytes:  # another one was written since the listing
                        raise self._too_large(max_bytes)
        except NotFoundError as exc:
            raise UnreadableError(self.uri, "not found", "it was removed after it was listed") from exc
        except StoreDeniedError as exc:
            raise UnreadableError(self.uri, "not found", str(exc)) from exc
        return bytes(data)

    def _too_large(self, max_bytes: int) -> UnreadableError:
        return UnreadableError(self.uri, "too large", f"it has over {max_bytes} bytes, the limit; split it")


async def s3_sources(s3: S3 | None, url: str) -> AsyncGenerator[S3Object, None]:
    """The object that `url` names, or all below it; listed page by page, as they are asked for.

    Raises InvalidRequestError (no S3 URL, no server in the settings), NotFoundError (no such bucket),
    StoreUnavailableError, UnreadableError("not found") if there is nothing below it.
    """
    if s3 is None:
        raise InvalidRequestError(f"{url!r}: set s3_endpoint, and the key files, to the server that has it", "path")
    try:
        root = Place.of(url)
    except ValueError as exc:
        raise InvalidRequestError(str(exc), "path") from exc
    if root.key and not root.key.endswith("/"):
        found = await s3.find(root)
        if found is not None:
            yield S3Object(root.key.rpartition("/")[2], root, found, s3)
            return
        root = Place(root.bucket, root.key + "/")
    is_empty = True
    async with aclosing(s3.list(root)) as pages:
        async for page in pages:
            is_empty = is_empty and not page
            for listed in page:
                uri = listed.key[len(root.key) :]
                if uri and not _LEFT_OUT.search(uri):
                    yield S3Object(uri, Place(root.bucket, listed.key), listed, s3)
    if is_empty:  # a name that was mistyped must not look like a source that lost everything
        raise UnreadableError(url, "not found", "there is no object of this name, and none below it")
