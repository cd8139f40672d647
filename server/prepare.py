"""The two middle stages of an ingestion: documents that wait are chunked together, and a window of chunks is embedded
while the next one is cut. What is in a window follows from the documents alone, not from when they came."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from indexers.base import Document
from models.base import Embedder, Passage
from server.base import Changes, DocumentPatch, Origin, PreparedDocument
from server.telemetry import Stages

WINDOW_CHUNKS = 256  # chunks sorted by length and embedded together
TOGETHER_CHARS = 262_144  # of documents chunked together: about a window's


@dataclass(frozen=True, slots=True)
class NewText:
    """A document whose text is to be chunked and embedded."""

    document: Document
    origin: Origin


Read = NewText | DocumentPatch  # what reading hands on: a new text, or what changed beside a known one
Cut = Callable[[Sequence[NewText]], Awaitable[Sequence[PreparedDocument]]]


@dataclass(slots=True)
class Window:
    upserts: list[PreparedDocument] = field(default_factory=list)
    patches: list[DocumentPatch] = field(default_factory=list)
    chunks: int = 0

    def __len__(self) -> int:
        return len(self.upserts) + len(self.patches)

    def add(self, item: PreparedDocument | DocumentPatch) -> None:
        if isinstance(item, DocumentPatch):
            self.patches.append(item)
        else:
            self.upserts.append(item)
            self.chunks += len(item.chunks)


class Preparation:
    """Both stages, each to run as a task; None in a queue is its end."""

    def __init__(self, cut: Cut, embedder: Embedder, *, max_documents: int, stages: Stages) -> None:
        """`max_documents`: of a window, however few chunks they have."""
        self._cut, self._embedder, self._max_documents, self._stages = cut, embedder, max_documents, stages

    async def chunk(self, documents: "asyncio.Queue[Read | None]", windows: "asyncio.Queue[Window | None]") -> None:
        window = Window()
        while items := await _waiting(documents):
            texts = [item for item in items if isinstance(item, NewText)]
            with self._stages.span("chunk"):
                cut = iter(await self._cut(texts) if texts else ())
            for item in items:
                window.add(next(cut) if isinstance(item, NewText) else item)
                if window.chunks >= WINDOW_CHUNKS or len(window) >= self._max_documents:
                    await windows.put(window)
                    window = Window()
        if len(window):
            await windows.put(window)
        await windows.put(None)

    async def embed(self, windows: "asyncio.Queue[Window | None]", prepared: "asyncio.Queue[Changes | None]") -> None:
        while (window := await windows.get()) is not None:
            await prepared.put(Changes(upserts=await self._embedded(window.upserts), patches=tuple(window.patches)))
        await prepared.put(None)

    async def _embedded(self, cut: Sequence[PreparedDocument]) -> tuple[PreparedDocument, ...]:
        passages = [
            Passage(chunk.context + one.document.text[chunk.start : chunk.end], chunk.token_ids)
            for one in cut
            for chunk in one.chunks
        ]
        with self._stages.span("embed"):
            embeddings = iter(await self._embedder.embed_passages(passages))
        return tuple(replace(one, embeddings=list(islice(embeddings, len(one.chunks)))) for one in cut)


async def _waiting(documents: "asyncio.Queue[Read | None]") -> list[Read]:
    """What the queue holds, up to about TOGETHER_CHARS of text, once it holds anything; nothing at its end."""
    items: list[Read] = []
    chars = 0
    item = await documents.get()
    while item is not None:
        items.append(item)
        chars += len(item.document.text) if isinstance(item, NewText) else 0
        if chars >= TOGETHER_CHARS or documents.empty():
            return items
        item = documents.get_nowait()
    if items:
        documents.put_nowait(None)  # the end is for the next call; nothing comes after it
    return items
