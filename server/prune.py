"""Deleting what a folder no longer holds: the documents of a namespace that a run did not name."""

from collections.abc import Set

from server.base import Changes, InvalidRequestError, NamespaceState
from server.catalog import Catalog
from server.commit import Writer


async def prune(catalog: Catalog, writer: Writer, state: NamespaceState, named: Set[str], failed: Set[str]) -> int:
    """Delete documents whose uri is not among `named`, which `failed` is a part of; returns how many there were.

    What could not be read is not gone: a file's documents stay ("file.jsonl#7" of "file.jsonl"), and all below a folder
    that could not be listed ("hr/"; "" is the whole). Raises InvalidRequestError if nothing was named at all: a disk
    that is not mounted looks like an empty folder.
    """
    if not named:
        raise InvalidRequestError(
            "there is nothing to ingest, so nothing was pruned: check the path, or delete what shall go by "
            "DELETE /v1/documents/{id}",
            "prune",
        )
    unlisted = tuple(source for source in failed if not source or source.endswith("/"))

    def is_gone(uri: str) -> bool:
        return not (uri in named or uri.startswith(unlisted) or uri.rsplit("#", 1)[0] in failed)

    deleted, after = 0, None
    while True:
        page, after = await catalog.documents(state.id, after, 1000)
        gone = tuple(one.id for one in page if is_gone(one.uri))
        if gone:
            await writer.commit(state, Changes(deletes=gone))
            deleted += len(gone)
        if after is None:
            return deleted
