"""Replaced versions go for good once the retention has passed: a sweep of every namespace, now and then."""

import asyncio
import logging

from indexers.base import IndexerError
from server.base import ServerError
from server.catalog import Catalog
from server.commit import Writer

INTERVAL_S = 3600.0  # versions are kept at least the retention, at most this longer

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


async def sweep_regularly(catalog: Catalog, writer: Writer, interval_s: float = INTERVAL_S) -> None:
    """Sweep until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        await sweep_all(catalog, writer)
