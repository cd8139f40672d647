"""The indexes that the contract suite runs on: how each is opened, over storage that a module's tests share."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from qdrant_client import AsyncQdrantClient

from indexers.base import CollectionSpec, Index, Namespace, Point, StoredPoint, View
from indexers.edge import EdgeIndex
from indexers.faiss import FaissIndex
from indexers.legs import PairedIndex
from indexers.memory import MemoryIndex
from indexers.pinecone import PineconeIndex
from indexers.qdrant import QdrantIndex
from tests.pinecone_server import PineconeServer, pinecone_server

KINDS = ("edge", "edge with payload indexes", "qdrant", "faiss", "pinecone")


@dataclass
class Backend:
    """`open` makes an index over the same storage each time. One is kept open where that costs time or forgets, and
    where the engine does not mind that each test has an event loop of its own."""

    open: Callable[[], Index]
    keeps: bool = False
    text_scores_differ: bool = False  # an IDF that counts rewritten versions until they are merged away
    takes_zero_vectors: bool = True
    open_for: Callable[[CollectionSpec], Index] | None = None  # where an index holds vectors of one kind only
    stop: Callable[[], None] | None = None  # ends the storage
    _kept: list[Index] = field(default_factory=list)

    @asynccontextmanager
    async def opened(self, spec: CollectionSpec | None = None) -> AsyncIterator[Index]:
        if spec and self.open_for:
            index = self.open_for(spec)
            yield index
            await index.close()
            return
        index = self._kept.pop() if self._kept else self.open()
        try:
            yield index
        finally:
            if self.keeps:
                self._kept.append(index)
            else:
                await index.close()

    async def close(self) -> None:
        while self._kept:
            await self._kept.pop().close()

    async def end(self) -> None:
        await self.close()
        if self.stop:
            self.stop()


def local_backend(kind: str, root: Path) -> Backend:
    match kind:
        case "edge":
            return Backend(lambda: EdgeIndex.open(root), keeps=True)
        case "edge with payload indexes":
            return Backend(lambda: EdgeIndex.open(root, large_from=1), keeps=True)
        case "qdrant":
            return Backend(
                lambda: PairedIndex(QdrantIndex.on(AsyncQdrantClient(":memory:")), MemoryIndex()), keeps=True
            )
        case "faiss":
            return Backend(lambda: PairedIndex(FaissIndex.open(root), MemoryIndex()), keeps=True)
        case "pinecone":
            return _pinecone()
        case _:
            return Backend(MemoryIndex)


def _pinecone() -> Backend:
    """A Pinecone index, which is a server, for each kind of vectors."""
    running, servers = ExitStack(), dict[CollectionSpec, PineconeServer]()

    def open_for(spec: CollectionSpec) -> Index:
        kind = CollectionSpec("any", spec.dimension, spec.metric)
        if kind not in servers:
            servers[kind] = running.enter_context(pinecone_server(spec.dimension, spec.metric))
            servers[kind].is_late = False  # tests/test_pinecone.py is about writes that are shown late
        return PairedIndex(PineconeIndex.at(servers[kind].url, "key"), MemoryIndex())

    return Backend(
        lambda: open_for(CollectionSpec("docs", 8)), open_for=open_for, takes_zero_vectors=False, stop=running.close
    )


class ReadFromText(PairedIndex):
    """A pair that reads from its text leg what it can: only vectors come from the other."""

    async def fetch(self, namespace: Namespace, ids: Sequence[str], view: View) -> dict[str, Point]:
        vectors = await self.dense.fetch(namespace, ids, view)
        found = await self.text.fetch(namespace, ids, view)
        return {id_: replace(point, vector=vectors[id_].vector) for id_, point in found.items()}

    async def scan(
        self, namespace: Namespace, view: View | None, after: str | None, limit: int
    ) -> tuple[list[StoredPoint], str | None]:
        return await self.text.scan(namespace, view, after, limit)

    async def count(self, namespace: Namespace, view: View | None) -> int:
        return await self.text.count(namespace, view)
