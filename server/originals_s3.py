"""Originals in a bucket: an object each, stored by one request, which S3 makes visible whole or not at all."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from server.base import NotFoundError, StoreUnavailableError
from server.originals import StoredOriginal, missing
from server.s3 import S3, Encryption, Place


class S3Originals:
    """Implements server.originals.OriginalStore. The client's closing is that of whoever opened it."""

    def __init__(self, s3: S3, url: str, encryption: Encryption) -> None:
        """`url`: `s3://bucket/prefix`; below the prefix, objects go by their names."""
        self._s3, self._encryption = s3, encryption
        root = Place.of(url)
        self._bucket, self._prefix = root.bucket, root.key.strip("/") + "/" if root.key.strip("/") else ""

    def _place(self, name: str) -> Place:
        return Place(self._bucket, self._prefix + name)

    async def put(self, name: str, data: bytes) -> None:
        with _bucket_is_there():
            await self._s3.put(self._place(name), data, self._encryption)

    async def read(self, name: str) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._s3.read(self._place(name))) as pieces:
                async for piece in pieces:
                    yield piece
        except NotFoundError as exc:
            raise missing(name) from exc

    async def delete(self, names: Sequence[str]) -> None:
        with _bucket_is_there():
            await self._s3.delete([self._place(name) for name in names])

    async def list(self, folder: str) -> AsyncGenerator[Sequence[StoredOriginal], None]:
        with _bucket_is_there():
            async with aclosing(self._s3.list(self._place(f"{folder}/"))) as pages:
                async for page in pages:
                    skipped = len(self._prefix)
                    yield [StoredOriginal(one.key[skipped:], one.size_bytes, one.stored_at) for one in page]

    async def close(self) -> None:
        pass


@contextmanager
def _bucket_is_there() -> Iterator[None]:
    """Without its bucket the store is away: no caller asked for anything that could be missing."""
    try:
        yield
    except NotFoundError as exc:
        raise StoreUnavailableError(f"originals: {exc}") from exc
