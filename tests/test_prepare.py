"""The middle stages of an ingestion: windows that follow from the documents alone, not from when they came."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from models.fake import FakeEmbedder
from server.base import Changes, DocumentPatch, Origin, PreparedDocument
from server.prepare import TOGETHER_CHARS, WINDOW_CHUNKS, NewText, Preparation, Read
from server.telemetry import Stages
from tests.corpus import prepare

ONE = prepare("a.md", "The pump is red.")


async def cut(texts: Sequence[NewText]) -> list[PreparedDocument]:
    """As many chunks as the document's metadata say."""
    return [
        replace(ONE, id=text.document.uri, chunks=[ONE.chunks[0]] * int(str(text.document.metadata["chunks"])))
        for text in texts
    ]


def item(number: int, chunks: int | None, chars: int) -> Read:
    if chunks is None:
        return DocumentPatch(f"doc-{number}")
    text = "a" * max(chars, ONE.chunks[0].end)
    document = replace(ONE.document, uri=f"doc-{number}", text=text, metadata={"chunks": str(chunks)})
    return NewText(document, Origin())


async def prepared(items: Sequence[Read], queue_size: int, max_documents: int) -> list[tuple[list[str], list[str]]]:
    """The ids of each window's documents and of its patches."""
    preparation = Preparation(cut, FakeEmbedder(), max_documents=max_documents, stages=Stages())
    documents: asyncio.Queue[Read | None] = asyncio.Queue(queue_size)
    windows, ready = asyncio.Queue(1), asyncio.Queue[Changes | None]()

    async def feed() -> None:
        for one in [*items, None]:
            await documents.put(one)

    await asyncio.gather(feed(), preparation.chunk(documents, windows), preparation.embed(windows, ready))
    changes = [ready.get_nowait() for _ in range(ready.qsize())]
    assert changes.pop() is None
    assert all(len(one.embeddings) == len(one.chunks) for change in changes if change for one in change.upserts)
    return [([u.id for u in change.upserts], [p.id for p in change.patches]) for change in changes if change]


def windows_of(items: Sequence[Read], max_documents: int) -> list[tuple[list[str], list[str]]]:
    """One document after the other, as if there were no queue."""
    windows: list[tuple[list[str], list[str]]] = []
    texts: list[str] = []
    patches: list[str] = []
    chunks = 0
    for one in items:
        if isinstance(one, DocumentPatch):
            patches.append(one.id)
        else:
            texts.append(one.document.uri)
            chunks += int(str(one.document.metadata["chunks"]))
        if chunks >= WINDOW_CHUNKS or len(texts) + len(patches) >= max_documents:
            windows.append((texts, patches))
            texts, patches, chunks = [], [], 0
    return [*windows, (texts, patches)] if texts or patches else windows


ITEMS = st.lists(
    st.tuples(st.none() | st.integers(0, WINDOW_CHUNKS * 2), st.integers(0, TOGETHER_CHARS)), max_size=30
).map(lambda made: [item(number, chunks, chars) for number, (chunks, chars) in enumerate(made)])


@settings(deadline=None)
@given(ITEMS, st.integers(1, 64), st.integers(1, 12))
def test_windows_follow_from_the_documents_alone(items: list[Read], queue_size: int, max_documents: int) -> None:
    assert asyncio.run(prepared(items, queue_size, max_documents)) == windows_of(items, max_documents)
