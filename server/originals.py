"""Originals: the very bytes that documents were made of, an object a document, kept where the settings say.

An object is written whole under a name of its own before the commit that refers to it, and never changed. The catalog
alone says which are in use: what a commit leaves without a document is noted in its transaction and removed after it,
what no commit came to refer to (a crash, a failure) is swept a day later.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, Self

from server import catalog_originals
from server.base import NotFoundError, StoreUnavailableError
from server.catalog import Catalog

AT_ONCE = 16  # objects being written
BATCH = 1000  # objects removed at once: as many as one request to S3 may name
ORPHAN_S = 86_400.0  # from writing an object to the commit that refers to it takes less, whatever the documents
PATIENCE_S = 2.0  # how long a delete waits for its store; then the store is left to it and the sweeper

log = logging.getLogger("refdesk.originals")


@dataclass(frozen=True, slots=True)
class StoredOriginal:
    """An object as its store lists it; `stored_at` in Unix time."""

    name: str
    size_bytes: int
    stored_at: float


class OriginalStore(Protocol):
    """Objects by name, whole or not there. Names: `<desk>/<2 digits>/<sha256>-<token>`, of [0-9a-f/-] alone.

    Every method raises StoreUnavailableError if the store fails, is closed or refuses us.
    """

    async def put(self, name: str, data: bytes) -> None:
        """Store an object, durable when this returns; if it fails, nothing is there."""
        ...

    def read(self, name: str) -> AsyncGenerator[bytes, None]:
        """An object's bytes in pieces. Raises NotFoundError before the first."""
        ...

    async def delete(self, names: Sequence[str]) -> None:
        """Remove up to BATCH objects; one that is not there is passed by."""
        ...

    def list(self, folder: str) -> AsyncGenerator[Sequence[StoredOriginal], None]:
        """Pages of the objects in a folder, `<desk>/<2 digits>`, in no order that counts."""
        ...

    async def close(self) -> None: ...


class Originals:
    """A desk's originals in a store."""

    def __init__(self, catalog: Catalog, store: OriginalStore, desk: str, *, keeps: bool = True) -> None:
        """`keeps`: whether new documents' bytes are kept; those kept before are read and removed in any case."""
        self._catalog, self._store, self._desk, self.keeps = catalog, store, desk, keeps
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[int]] = set()

    @classmethod
    async def of(cls, catalog: Catalog, store: OriginalStore, *, keeps: bool = True) -> Self:
        """The originals of the desk whose catalog this is."""
        return cls(catalog, store, await catalog.write(catalog_originals.desk_id), keeps=keeps)

    async def keep(self, data: bytes, sha256: str) -> str:
        """Store a source's bytes, durable when this returns; the object's name is for the commit to refer to.

        `sha256`: theirs, in hex.
        """
        name = f"{self._desk}/{sha256[:2]}/{sha256}-{secrets.token_hex(8)}"
        async with self._turns:
            await self._store.put(name, data)
        return name

    async def read(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes in pieces. Raises NotFoundError before the first; StoreUnavailableError after the last if they
        are not those that were stored."""
        digest = hashlib.sha256()
        async with aclosing(self._store.read(name)) as pieces:
            async for piece in pieces:
                digest.update(piece)
                yield piece
        if digest.hexdigest() != sha256_of(name):
            raise StoreUnavailableError(f"original {name!r} is damaged in its store: ingest the document again")

    async def forget(self) -> None:
        """Remove what documents no longer refer to. A store that fails or is slow is left to the sweeper."""
        task = asyncio.create_task(self.purge())
        self._running.add(task)
        task.add_done_callback(self._finished)
        await asyncio.wait({task}, timeout=PATIENCE_S)

    def _finished(self, task: asyncio.Task[int]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("originals of deleted documents are still stored, and will be tried again: %s", error)

    async def purge(self) -> int:
        """Remove what documents no longer refer to; returns how many objects. Raises StoreUnavailableError."""
        removed = 0
        while names := await self._catalog.read(catalog_originals.lost, BATCH):
            await self._store.delete(names)
            await self._catalog.write(catalog_originals.forget, names)
            removed += len(names)
        return removed

    async def sweep(self, older_than_s: float = ORPHAN_S) -> int:
        """Remove objects that no document refers to and that were stored longer ago than this; returns how many."""
        orphans, _ = await self.repair(older_than_s)
        return orphans

    async def repair(self, older_than_s: float = ORPHAN_S) -> tuple[int, int]:
        """Sweep, and find documents whose object is gone, so that their next ingestion stores it again.

        Returns (objects removed, documents without theirs).
        """
        removed, lost = await self.purge(), 0
        before = time.time() - older_than_s
        for number in range(256):
            folder = f"{self._desk}/{number:02x}"
            wanted = await self._catalog.read(catalog_originals.below, folder)  # first: what it names is stored
            async with aclosing(self._store.list(folder)) as pages:
                async for page in pages:
                    wanted.difference_update(stored.name for stored in page)
                    removed += await self._remove_orphans([s.name for s in page if s.stored_at < before])
            if wanted:
                lost += await self._catalog.write(catalog_originals.miss, sorted(wanted))
        return removed, lost

    async def _remove_orphans(self, names: Sequence[str]) -> int:
        used = await self._catalog.read(catalog_originals.referred_to, names) if names else set()
        orphans = [name for name in names if name not in used]
        for at in range(0, len(orphans), BATCH):
            await self._store.delete(orphans[at : at + BATCH])
        return len(orphans)

    async def close(self) -> None:
        """Wait for what is being removed, and close the store."""
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._store.close()


def sha256_of(name: str) -> str:
    """The digest of an object's bytes, which its name says."""
    return name.rpartition("/")[2].partition("-")[0]


def missing(name: str) -> NotFoundError:
    """What a store says of an object that it does not have."""
    return NotFoundError(f"original {name!r} is not in its store: ingest the document again")
