"""Deleting what a source no longer holds: of a folder if that is asked for, of a file that was read in any case."""

from collections.abc import Callable, Iterable, Set
from functools import partial

from server.base import InvalidRequestError, NamespaceState, StoredDocument
from server.catalog import Catalog
from server.catalog_keys import StoredFailure
from server.commit import Writer
from server.delete import PAGE, delete_where


async def prune(catalog: Catalog, writer: Writer, state: NamespaceState, named: Set[str], failed: Set[str]) -> int:
    """Delete documents whose uri is not among `named`, which `failed` is a part of; returns how many there were.

    What could not be read is not gone: a file's documents stay ("file.jsonl#7" of "file.jsonl"), and all below a folder
    that could not be listed ("hr/"; "" is the whole). Raises InvalidRequestError if nothing was named at all: a disk
    that is not mounted looks like an empty folder. Failures of what is gone are forgotten.
    """
    if not named:
        raise InvalidRequestError(
            "there is nothing to ingest, so nothing was pruned: check the path, or delete what shall go by "
            "DELETE /v1/documents/{id}",
            "prune",
        )
    unlisted = tuple(source for source in failed if not source or source.endswith("/"))

    def is_gone(part: StoredDocument | StoredFailure) -> bool:
        uri = part.uri
        return not (uri in named or uri.startswith(unlisted) or uri.rsplit("#", 1)[0] in failed)

    await _forget(catalog, state, is_gone)
    return (await delete_where(catalog, writer, state, is_gone)).documents


async def prune_parts(
    catalog: Catalog, writer: Writer, state: NamespaceState, files: Iterable[str], named: Set[str]
) -> int:
    """Delete what files that were read held once and hold no more ("file.jsonl#7"); returns how many documents.

    `named`: all that was found in them, what could not be read included. Failures of what is gone are forgotten.
    """
    deleted = 0
    for file in files:
        start = f"{file}#"
        is_gone = partial(_is_missing_part, start, named)
        deleted += (await delete_where(catalog, writer, state, is_gone, start=start)).documents
        await _forget(catalog, state, is_gone, start)
    return deleted


async def _forget(
    catalog: Catalog, state: NamespaceState, is_gone: Callable[[StoredFailure], bool], start: str = ""
) -> None:
    """Forget the failures of what is gone, of those whose uri begins with `start`."""
    after: str | None = start
    while after is not None and after.startswith(start):
        failures, after = await catalog.failures(state.id, after, PAGE)
        await catalog.clear_failures(state.id, [one.uri for one in failures if is_gone(one)])


def _is_missing_part(start: str, named: Set[str], part: StoredDocument | StoredFailure) -> bool:
    return part.uri.startswith(start) and part.uri[len(start) :].isdecimal() and part.uri not in named
