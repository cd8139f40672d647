"""Replaced versions go for good once the retention has passed, originals once no document refers to them."""

import asyncio
import logging
from itertools import count

from indexers.base import IndexerError
from server.base import ServerError
from server.catalog import Catalog
from server.commit import Writer
from server.originals import Originals

INTERVAL_S = 3600.0  # versions are kept at least the retention, at most this longer
ORPHANS_EVERY = 24  # sweeps: looking for originals without a document lists all there are

log = logging.getLogger(__name__)


async def sweep_all(catalog: Catalog, writer: Writer) -> int:
    """Sweep every namespace once; returns how many points went. One that fails is logged and left for the next time."""
    removed = 0
    for collection in await catalog.collections():
        for state in await catalog.namespaces(collection.spec.name):
            try:
                removed += await writer.sweep(state)
            except (ServerError, IndexerError) as exc:
                log.warning("sweep of %s failed, will be tried again: %s", state.namespace, exc)
    return removed


async def sweep_originals(originals: Originals, *, orphans: bool) -> int:
    """Remove what deleted documents left in the store and, if asked, what no document ever referred to; how many."""
    try:
        return await (originals.sweep() if orphans else originals.purge())
    except ServerError as exc:
        log.warning("sweep of originals failed, will be tried again: %s", exc)
        return 0


async def sweep_once(catalog: Catalog, writer: Writer, originals: Originals | None, *, orphans: bool = False) -> None:
    """Sweep every namespace, and what documents left among the originals; if asked, what no document ever had too."""
    await sweep_all(catalog, writer)
    if originals is not None:
        await sweep_originals(originals, orphans=orphans)


async def sweep_regularly(
    catalog: Catalog, writer: Writer, interval_s: float = INTERVAL_S, originals: Originals | None = None
) -> None:
    """Sweep until cancelled. Whatever fails is logged, and the next sweep comes in its turn."""
    for number in count(1):
        await asyncio.sleep(interval_s)
        try:
            await sweep_once(catalog, writer, originals, orphans=number % ORPHANS_EVERY == 0)
        except Exception:
            log.exception("a sweep failed; the next one is in %.0f s", interval_s)
