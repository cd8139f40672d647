"""A catalog, an exact index and their writer on one namespace: what the tests of commits work on."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from indexers.base import Index, View
from server import tables
from server.base import Changes, DocumentPatch, NamespaceState, PreparedDocument
from server.catalog import Catalog
from server.commit import Writer
from server.database import Backend
from tests.corpus import COLLECTION

FINGERPRINT = COLLECTION.embedder_fingerprint


@dataclass(slots=True)
class Bench:
    """A catalog, an index and their writer, with one namespace."""

    catalog: Catalog
    index: Index
    writer: Writer
    state: NamespaceState

    @classmethod
    async def open(cls, backend: Backend, index: Index) -> "Bench":
        catalog = await Catalog.open(backend)
        await catalog.create_collection(COLLECTION)
        writer = Writer(catalog, index, token_bits_of=FINGERPRINT, retention_s=3600, grace_s=0)
        return cls(catalog, index, writer, await catalog.namespace("docs", "default", create=True))

    async def close(self) -> None:
        await self.writer.close()
        await self.catalog.close()

    async def commit(
        self,
        *upserts: PreparedDocument,
        patches: Sequence[DocumentPatch] = (),
        deletes: Sequence[str] = (),
    ) -> int:
        return await self.writer.commit(self.state, Changes(upserts, patches, deletes))

    async def visible(self, snapshot: int) -> dict[str, str]:
        """uri → text as a search at `snapshot` finds it: what the index shows, held against the catalog."""
        ids = []
        after: str | None = None
        while True:
            page, after = await self.index.scan(self.state.namespace, View(snapshot), after, 1000)
            ids += [stored.point.id for stored in page]
            if after is None:
                break
        assert len(set(ids)) == len(ids), "a point is there twice"
        chunks = await self.catalog.chunks(self.state.id, ids, snapshot)
        assert sorted(chunks) == sorted(ids), "the index shows what the catalog does not"
        texts: dict[str, str] = {}
        versions: dict[str, str] = {}
        for chunk in sorted(chunks.values(), key=lambda c: (c.uri, c.index)):
            assert versions.setdefault(chunk.uri, chunk.version) == chunk.version, "two versions of one document"
            texts[chunk.uri] = texts.get(chunk.uri, "") + chunk.text
        return texts

    async def counts(self) -> dict[str, int]:
        def count(connection: Connection) -> dict[str, int]:
            names = ("documents", "versions", "lives", "chunks", "text_blocks", "token_vectors", "purges", "tombstones")
            every = tables.metadata.tables
            return {n: connection.execute(select(func.count()).select_from(every[n])).scalar_one() for n in names}

        return await self.catalog.read(count)
