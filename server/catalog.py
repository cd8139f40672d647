"""The catalog: what documents, versions, chunks, keys and commits there are. It alone says what is visible.

Every method is one transaction on a thread of the database's own; the functions it runs are in catalog_*.py.
Reads see the last finished commit and never wait for a write.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection

from indexers.base import Mark
from server import catalog_documents, catalog_keys, catalog_names
from server.base import Collection, NamespaceState, StoredChunk, StoredDocument
from server.catalog_documents import Place
from server.catalog_keys import StoredFailure, StoredKey
from server.database import Backend, Database
from server.lease import Leases
from server.sqlite import Sqlite

_SNAPSHOTS = 1024  # sets of namespaces whose states are remembered between two writes

P = ParamSpec("P")
T = TypeVar("T")


class Catalog:
    """Opened once a process: an SQLite file by the owner of the data folder, a server's database by as many as wish."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshots: dict[tuple[str, ...], Mapping[str, NamespaceState]] = {}
        self._snapshots_since = 0  # how many writes the database had seen when they were read

    @classmethod
    async def open(cls, where: Path | Backend) -> Self:
        """Open a catalog, or make it; a path is that of an SQLite file.

        Raises ConflictError if a newer schema version wrote it, CatalogUnavailableError.
        """
        database = Database(Sqlite(where) if isinstance(where, Path) else where)
        try:
            await database.open()
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        await self._database.close()

    @property
    def leases(self) -> Leases:
        """Who may write which namespace now."""
        return self._database.leases

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function of catalog_*.py in one read transaction."""
        return await self._database.read(query, *args, **kwargs)

    async def write(self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function of catalog_*.py in one durable transaction."""
        return await self._database.write(change, *args, **kwargs)

    # --- collections and namespaces --------------------------------------------------------------------------------

    async def create_collection(self, collection: Collection) -> None:
        """Make a collection; an equal one is left as it is. Raises ConflictError if it exists with other settings."""
        await self.write(catalog_names.create_collection, collection)

    async def collection(self, name: str) -> Collection:
        """Raises NotFoundError."""
        return await self.read(catalog_names.collection, name)

    async def collections(self) -> list[Collection]:
        """All of them, by name."""
        return await self.read(catalog_names.all_collections)

    async def rechunk_collection(self, name: str, chunking: str) -> None:
        """Note another chunking for what is ingested from now on; each document keeps saying how it was cut."""
        await self.write(catalog_names.rechunk_collection, name, chunking)

    async def drop_collection(self, name: str) -> None:
        """Remove a collection. Raises NotFoundError; ConflictError while it has namespaces (Writer.drop each)."""
        await self.write(catalog_names.drop_collection, name)

    async def namespace(self, collection: str, name: str, *, create: bool = False) -> NamespaceState:
        """A namespace at its present commit; a created one is at 0 and reaches the index with its first commit.

        Raises NotFoundError; ConflictError when creating one whose drop is unfinished.
        """
        if create:
            return await self.write(catalog_names.create_namespace, collection, name)
        return await self.read(catalog_names.namespace, collection, name)

    async def namespaces(self, collection: str) -> list[NamespaceState]:
        """All of a collection's, by name."""
        return await self.read(catalog_names.all_namespaces, collection)

    async def snapshot(self, collection: str, names: Sequence[str]) -> Mapping[str, NamespaceState]:
        """Namespaces by name, each at its present commit, all read at one instant. Raises NotFoundError.

        A database that no other process writes to is read once between two writes: every search asks for this.
        """
        if self._database.is_shared:
            return await self.read(catalog_names.snapshot, collection, names)
        writes, key = self._database.writes, (collection, *names)
        if self._snapshots_since != writes or len(self._snapshots) >= _SNAPSHOTS:
            self._snapshots, self._snapshots_since = {}, writes
        found = self._snapshots.get(key)
        if found is None:
            found = await self.read(catalog_names.snapshot, collection, names)
            if self._snapshots_since == writes:  # else it may be older than what the others here were read after
                self._snapshots[key] = found
        return found

    async def droppable(self, collection: str, name: str) -> NamespaceState:
        """A namespace, also one whose drop was begun and not finished. Raises NotFoundError."""
        return await self.read(catalog_names.droppable, collection, name)

    async def statistics(self, namespace_id: int) -> tuple[int, int]:
        """(documents, chunks) of the present commit; it counts, so it is for status, not for every search."""
        return await self.read(catalog_names.statistics, namespace_id)

    async def oldest_commit(self, namespace_id: int) -> int:
        """The oldest commit that can still be read whole: sweeping raises it, never above what the retention keeps."""
        return await self.read(catalog_names.oldest_commit, namespace_id)

    # --- documents -------------------------------------------------------------------------------------------------

    async def documents(
        self,
        namespace_id: int,
        after: str | None = None,
        limit: int = 100,
        *,
        groups: frozenset[str] | None = None,
    ) -> tuple[list[StoredDocument], str | None]:
        """A page of documents by uri that somebody in `groups` may read (None: all there are), and the `after` of the
        next page (None at the end)."""
        return await self.read(catalog_documents.page, namespace_id, after, limit, groups=groups)

    async def document(self, namespace_id: int, document_id: str) -> StoredDocument:
        """A namespace's document. Raises GoneError if it was deleted, NotFoundError if it never was there."""
        return await self.read(catalog_documents.document, namespace_id, document_id)

    async def locate(self, document_id: str) -> Place:
        """Where a document is, or was if it is deleted, so that a caller's rights are known before more is
        said of it. Raises NotFoundError."""
        return await self.read(catalog_documents.locate, document_id)

    async def lookup(self, namespace_id: int, uris: Sequence[str]) -> dict[str, StoredDocument]:
        """Documents by uri, for deciding what is unchanged. One that repair wants ingested again is left out."""
        return await self.read(catalog_documents.lookup, namespace_id, uris)

    async def text(self, document_id: str, version: str | None = None, start: int = 0, end: int | None = None) -> str:
        """Code points [start, end) of a version's canonical text (None: the present version; to its end).

        Raises GoneError (deleted), NotFoundError (no such document or version), InvalidRequestError (no such span).
        """
        return await self.read(catalog_documents.text, document_id, version, start=start, end=end)

    async def marks(self, document_id: str, version: str | None = None) -> tuple[Mark, ...]:
        """Page and heading marks of a version. Raises as `text` does."""
        return await self.read(catalog_documents.marks, document_id, version)

    async def chunks(
        self, namespace_id: int, ids: Sequence[str], snapshot: int, *, token_bits_of: str | None = None
    ) -> dict[str, StoredChunk]:
        """Chunks visible at a commit, with their text and the document's present metadata and groups; others are
        left out. `token_bits_of`: the model fingerprint whose token vectors to add.

        Raises GoneError if the commit was swept meanwhile.
        """
        return await self.read(
            catalog_documents.chunks_by_id, namespace_id, ids, snapshot=snapshot, token_bits_of=token_bits_of
        )

    async def chunks_at(
        self, states: Sequence[NamespaceState], homes: Mapping[str, str], *, token_bits_of: str | None = None
    ) -> dict[str, StoredChunk]:
        """`chunks` of several namespaces in one transaction, each at its state's commit. `homes`: of each chunk id the
        name of its namespace, which one of the states has."""
        ids: dict[str, list[str]] = {}
        for id_, home in homes.items():
            ids.setdefault(home, []).append(id_)
        asked = [(s.id, ids[s.namespace.name], s.commit) for s in states if s.namespace.name in ids]
        return await self.read(catalog_documents.chunks_by_home, asked, token_bits_of=token_bits_of)

    # --- keys and failures -----------------------------------------------------------------------------------------

    async def add_key(self, key: StoredKey) -> None:
        """Raises ConflictError if its id or hash is taken."""
        await self.write(catalog_keys.add_key, key)

    async def find_key(self, sha256: str) -> StoredKey | None:
        """The key with this hash, expired or revoked ones included: whether it is good is the caller's to judge."""
        return await self.read(catalog_keys.find_key, sha256)

    async def keys(self) -> list[StoredKey]:
        """All keys, oldest first."""
        return await self.read(catalog_keys.all_keys)

    async def revoke_key(self, id_: str) -> None:
        """Raises NotFoundError."""
        await self.write(catalog_keys.revoke_key, id_)

    async def record_failure(self, namespace_id: int, uri: str, reason: str, detail: str) -> None:
        """Set a source aside for a retry."""
        await self.write(catalog_keys.record_failure, namespace_id, uri, reason=reason, detail=detail)

    async def clear_failures(self, namespace_id: int, uris: Iterable[str], *, since: float = 0.0) -> None:
        """Forget these sources' failures, if there are any; `since` (Unix time): those alone that came after it."""
        for uri in sorted(await self.failed(namespace_id, list(uris))):
            await self.write(catalog_keys.clear_failure, namespace_id, uri, since=since)

    async def failed(self, namespace_id: int, uris: Sequence[str]) -> set[str]:
        """Those of these sources that are set aside."""
        return await self.read(catalog_keys.failed, namespace_id, uris)

    async def failures(
        self, namespace_id: int, after: str | None = None, limit: int = 100
    ) -> tuple[list[StoredFailure], str | None]:
        """A page of what is set aside, by uri, and the `after` of the next page (None at the end)."""
        return await self.read(catalog_keys.page_of_failures, namespace_id, after, limit)

    async def count_failures(self, namespace_id: int) -> int:
        return await self.read(catalog_keys.count_failures, namespace_id)
