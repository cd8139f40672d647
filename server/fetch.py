"""Sources to their bytes, in order: what lies on this machine one by one, objects of a store elsewhere some ahead.

Memory holds a window of bytes, whatever the corpus; closing the generator ends the downloads under way.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from itertools import islice

from indexers.base import UnreadableError
from indexers.sources import RemoteSource, Source, Upload

AnySource = Source | Upload | RemoteSource
Sources = Iterable[Source | Upload] | AsyncIterable[RemoteSource]
Loaded = tuple[AnySource, bytes | UnreadableError]

AT_ONCE = 8  # downloads
AHEAD_BYTES = 64 * 2**20  # of downloads, unless one alone is larger


async def batches(sources: Sources, size: int) -> AsyncGenerator[Sequence[AnySource], None]:
    """Up to `size` sources at a time. Raises what listing them raises."""
    if not isinstance(sources, AsyncIterable):
        remaining = iter(sources)
        while batch := await asyncio.to_thread(lambda: list(islice(remaining, size))):
            yield batch
        return
    page: list[AnySource] = []
    async for source in sources:
        page.append(source)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


async def loaded(sources: Iterable[AnySource], max_bytes: int) -> AsyncGenerator[Loaded, None]:
    """Each source with its bytes, or why they cannot be had. Raises what a store raises that fails as a whole."""
    remaining = deque(sources)
    running: deque[tuple[AnySource, asyncio.Task[bytes]]] = deque()
    try:
        while remaining or running:
            while remaining and _may_start(remaining[0], [source for source, _ in running]):
                source = remaining.popleft()
                running.append((source, asyncio.create_task(_load(source, max_bytes))))
            source, task = running[0]
            try:
                data: bytes | UnreadableError = await task
            except UnreadableError as exc:
                data = exc
            running.popleft()
            yield source, data
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)


def _may_start(source: AnySource, running: Sequence[AnySource]) -> bool:
    if not running:
        return True
    if isinstance(source, Source | Upload) or len(running) >= AT_ONCE:
        return False
    under_way = sum(other.size_bytes for other in running if not isinstance(other, Source | Upload))
    return under_way + source.size_bytes <= AHEAD_BYTES


async def _load(source: AnySource, max_bytes: int) -> bytes:
    if isinstance(source, Source | Upload):
        return await asyncio.to_thread(source.load, max_bytes)
    return await source.fetch(max_bytes)
