"""Deleting documents of a namespace: those that are named, or all that something holds of, page by page.

Whether one goes is judged as it is at the commit: what was replaced since it was found is another document by then.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexers.filter import Filter, matches
from server.base import NamespaceState, StoredDocument, is_readable
from server.catalog import Catalog
from server.commit import Writer

PAGE = 1000  # documents read, and deleted, at once


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many documents went, and the namespace's commit after that."""

    documents: int
    commit: int


async def delete_named(
    writer: Writer, state: NamespaceState, ids: Sequence[str], groups: frozenset[str] | None
) -> Deleted:
    """Delete the documents under these ids that somebody in `groups` may read, in one commit; others are ignored."""
    return Deleted(*await writer.delete(state, ids, lambda document: is_readable(document.groups, groups)))


async def delete_matching(
    catalog: Catalog, writer: Writer, state: NamespaceState, wanted: Filter, groups: frozenset[str] | None
) -> Deleted:
    """Delete the documents whose metadata meet a filter and that somebody in `groups` may read."""

    def may_go(document: StoredDocument) -> bool:
        return is_readable(document.groups, groups) and matches(wanted, document.metadata)

    return await delete_where(catalog, writer, state, may_go)


async def delete_where(
    catalog: Catalog,
    writer: Writer,
    state: NamespaceState,
    may_go: Callable[[StoredDocument], bool],
    *,
    start: str = "",
) -> Deleted:
    """Delete all documents that may go, of those whose uri begins with `start`, in a commit a page."""
    deleted = Deleted(0, state.commit)
    after: str | None = start
    while after is not None and after.startswith(start):
        page, after = await catalog.documents(state.id, after, PAGE)
        gone = await asyncio.to_thread(lambda found: [one.id for one in found if may_go(one)], page)
        if gone:
            count, commit = await writer.delete(state, gone, may_go)
            deleted = Deleted(deleted.documents + count, commit)
    return deleted
