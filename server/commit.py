"""Changes become visible here, all at once: index first, stamped with the next commit number, then one transaction.

A crash at any instant leaves either the old state or the new one. What it left undone is found by the catalog's marks
(pending, purges, sweeping, dropping) and finished or undone before the namespace is written again.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from itertools import count, islice
from typing import Any, TypeVar

from indexers.base import Index, NamespaceNotFoundError, Point
from server import catalog_changes, catalog_names, catalog_plan
from server.base import (
    CatalogUnavailableError,
    Changes,
    NamespaceState,
    NotFoundError,
    PreparedDocument,
    StoredDocument,
)
from server.catalog import Catalog
from server.catalog_names import Unfinished
from server.catalog_plan import Plan, chunk_ids
from server.faults import reach
from server.lease import Lease
from server.originals import Originals

T = TypeVar("T")

SLICE = 256  # points, or ids, handed to the index at once
SWEEP_BATCH = 64  # versions removed in one transaction, so that other namespaces' commits need not wait long
ATTEMPTS = 5  # at a commit whose catalog cannot be reached …
AGAIN_S = 0.4  # … with this before the second one at most, doubled each time: 6 s in all
SEARCH_GRACE_S = 30.0  # a search that began at an older commit may still be running: longer than any deadline


class Writer:
    """This process's writer. Commits to one namespace queue, whoever writes them; others go on beside them."""

    def __init__(
        self,
        catalog: Catalog,
        index: Index,
        *,
        token_bits_of: str,
        retention_s: float,
        grace_s: float = SEARCH_GRACE_S,
        originals: Originals | None = None,
    ) -> None:
        """`token_bits_of`: fingerprint of the model that made the token vectors; `retention_s`: what sweeping keeps.
        `originals` are told when documents lost theirs; without, the sweeper sees to it."""
        self._catalog, self._index, self._originals = catalog, index, originals
        self._token_bits_of = token_bits_of
        self._grace_s = grace_s
        self._kept_s = max(retention_s, grace_s)
        self._leases = catalog.leases
        self._name, self._turns = secrets.token_hex(8), count(1)
        self._found: dict[tuple[int, int, str], float] = {}  # commits that another writer left unfinished: since when
        self._running: set[asyncio.Task[Any]] = set()

    async def commit(self, namespace: NamespaceState, changes: Changes) -> int:
        """Make all changes visible at once and durable; returns the commit's number (the present one, if none changed).

        A caller that is cancelled does not stop a commit that was begun. Raises InvalidRequestError,
        NotFoundError (a dropped namespace, a patch of no document), GoneError (of a deleted one), IndexerError,
        CatalogUnavailableError; nothing is visible then.
        """
        number, _ = await self._to_the_end(self._commit_at_last(namespace.id, changes))
        return number

    async def delete(
        self, namespace: NamespaceState, ids: Sequence[str], may_go: Callable[[StoredDocument], bool]
    ) -> tuple[int, int]:
        """Commit that these documents go, those that `may_go` holds of by then; returns how many, and the commit."""
        changes = Changes(deletes=ids, may_go=may_go)
        number, deleted = await self._to_the_end(self._commit_at_last(namespace.id, changes))
        return deleted, number

    async def sweep(self, namespace: NamespaceState, *, retention_s: float | None = None) -> int:
        """Remove for good what ended longer ago than the retention (or another, this once); returns how many points."""
        kept_s = self._kept_s if retention_s is None else max(retention_s, self._grace_s)
        return await self._to_the_end(self._sweep(namespace.id, kept_s))

    async def drop(self, namespace: NamespaceState) -> None:
        """Delete a namespace with all that is in it; its documents answer `gone` from now on, its jobs end.

        One whose drop was begun and failed is dropped to the end. Raises NotFoundError if it is gone already.
        """
        await self._to_the_end(self._drop(namespace.id))

    async def recover(self) -> list[Unfinished]:
        """Finish or undo what a crash left, in every namespace that no other process is writing; returns what was
        found. Cheap when nothing was."""
        return await self._to_the_end(self._recover_all())

    async def close(self) -> None:
        """Wait for what was begun."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def lease(self, namespace_id: int) -> AbstractAsyncContextManager[Lease]:
        """Held while a namespace is written: `async with writer.lease(id)` keeps every other writer out."""
        return self._leases.hold(namespace_id)

    # --- commit ----------------------------------------------------------------------------------------------------

    async def _commit_at_last(self, namespace_id: int, changes: Changes) -> tuple[int, int]:
        """Commit, again from the start if the catalog was away: what is there already then changes nothing."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._commit(namespace_id, changes)
            except CatalogUnavailableError as exc:
                if not exc.may_pass:
                    raise
            await asyncio.sleep(random.uniform(0.5, 1) * AGAIN_S * 2**attempt)
        return await self._commit(namespace_id, changes)

    async def _commit(self, namespace_id: int, changes: Changes) -> tuple[int, int]:
        """Returns the commit's number, and how many documents it deleted."""
        async with self.lease(namespace_id) as lease:
            await self._recover(namespace_id, lease)
            plan = await self._catalog.read(catalog_plan.plan, namespace_id, changes, self._token_bits_of)
            if plan.is_empty:
                return plan.number - 1, 0
            turn = self._turn()
            await self._catalog.write(catalog_names.begin, namespace_id, turn)
            reach("commit.begun")
            await self._write_index(plan, lease)
            await self._index.flush(plan.namespace.namespace)
            reach("commit.flushed")
            await self._catalog.write(catalog_changes.apply, plan, turn)
            reach("commit.applied")
            if plan.deleted:
                await self._purge(plan.namespace, lease)
        if plan.lost_originals and self._originals:
            await self._originals.forget()
        return plan.number, len(plan.deleted)

    async def _write_index(self, plan: Plan, lease: Lease) -> None:
        namespace = plan.namespace.namespace
        await lease.check()
        if plan.namespace.commit == 0:
            reach("create.catalog")
            await self._index.create(namespace)
        for points in _slices(_points(plan)):
            await lease.check()
            await self._index.put(namespace, points, plan.number)
            reach("commit.put")
        for ids in _slices(_ended_ids(plan)):
            await lease.check()
            await self._index.delete(namespace, ids, plan.number)
        reach("commit.deleted")
        for patched in plan.patched:
            if patched.reaches_index:
                metadata, groups = patched.metadata, patched.groups
                await lease.check()
                await self._index.patch(namespace, patched.chunk_ids, metadata, groups, plan.number)
                reach("commit.patched")

    async def _purge(self, state: NamespaceState, lease: Lease) -> None:
        """Let the index forget every version of deleted documents, then forget that it had to."""
        purges = await self._catalog.read(catalog_changes.unfinished_purges, state.id)
        for part in _slices(id_ for _, ids in purges for id_ in ids):
            await lease.check()
            await self._index.purge(state.namespace, part)
            reach("purge.index")
        await self._index.flush(state.namespace)
        reach("purge.flushed")
        await self._catalog.write(catalog_changes.finish_purges, state.id, [id_ for id_, _ in purges])
        reach("purge.finished")

    # --- after a crash ---------------------------------------------------------------------------------------------

    async def _recover_all(self) -> list[Unfinished]:
        found = []
        unfinished = await self._catalog.read(catalog_names.all_unfinished)
        for each in unfinished:
            self._settles_at(each)
        for each in unfinished:
            async with self._leases.hold_if_free(each.state.id) as lease:
                left = await self._catalog.read(catalog_names.unfinished, each.state.id)
                if lease is None or not left:
                    continue
                found.append(left)
                if left.is_dropping:
                    await self._finish_drop(left.state, lease)
                else:
                    await self._recover(each.state.id, lease)
        return found

    async def _left(self, namespace_id: int) -> Unfinished:
        left = await self._catalog.read(catalog_names.unfinished, namespace_id)
        if left is None or left.is_dropping:
            raise NotFoundError("the namespace was dropped meanwhile: create it again to write to it")
        return left

    async def _recover(self, namespace_id: int, lease: Lease) -> NamespaceState:
        """Undo or finish what is unfinished; the namespace as it is then."""
        left = await self._left(namespace_id)
        if left.is_pending:
            await asyncio.sleep(max(0.0, self._settles_at(left) - time.monotonic()))
            await self._catalog.write(catalog_names.take_over, namespace_id, self._turn())
            left = await self._left(namespace_id)  # a writer whose answer was lost may have finished it after all
        namespace = left.state.namespace
        if left.is_pending:
            await lease.check()
            await self._index.create(namespace)
            await self._index.undo(namespace, left.state.commit)
            reach("undo.index")
            await self._index.flush(namespace)
            reach("undo.flushed")
            await self._catalog.write(catalog_names.clear_pending, left.state.id)
            reach("undo.finished")
        if left.is_purging:
            await self._purge(left.state, lease)
        if left.is_sweeping:
            await self._finish_sweep(left.state, lease)
        return left.state

    def _turn(self) -> str:
        """A name for one commit of this writer's: one that another writer took over is known by it."""
        return f"{self._name}-{next(self._turns)}"

    def _settles_at(self, left: Unfinished) -> float:
        """When nothing that another process's writer asked of the index can still be under way (monotonic time)."""
        if left.pending_by is None or left.pending_by.startswith(self._name) or not self._leases.takeover_s:
            return 0.0
        commit = (left.state.id, left.state.commit, left.pending_by)
        return self._found.setdefault(commit, time.monotonic()) + self._leases.takeover_s

    # --- sweep and drop --------------------------------------------------------------------------------------------

    async def _sweep(self, namespace_id: int, kept_s: float) -> int:
        async with self.lease(namespace_id) as lease:
            state = await self._recover(namespace_id, lease)
            horizon = await self._catalog.read(catalog_names.commit_at, namespace_id, time.time() - kept_s)
            if horizon <= await self._catalog.oldest_commit(namespace_id):
                return 0
            await self._catalog.write(catalog_names.begin_sweep, namespace_id, horizon)
            reach("sweep.horizon")
            return await self._finish_sweep(state, lease)

    async def _finish_sweep(self, state: NamespaceState, lease: Lease) -> int:
        horizon = await self._catalog.oldest_commit(state.id)
        await lease.check()
        removed = await self._index.sweep(state.namespace, horizon)
        reach("sweep.index")
        await self._index.flush(state.namespace)
        reach("sweep.flushed")
        while await self._catalog.write(catalog_names.sweep_some, state.id, horizon, SWEEP_BATCH) == SWEEP_BATCH:
            reach("sweep.catalog")
        reach("sweep.catalog")
        return removed

    async def _drop(self, namespace_id: int) -> None:
        async with self.lease(namespace_id) as lease:
            left = await self._catalog.read(catalog_names.unfinished, namespace_id)
            if left is None:
                raise NotFoundError("the namespace was dropped meanwhile")
            await self._catalog.write(catalog_changes.begin_drop, left.state)
            reach("drop.begun")
            await self._finish_drop(left.state, lease)
        if self._originals:
            await self._originals.forget()

    async def _finish_drop(self, state: NamespaceState, lease: Lease) -> None:
        await lease.check()
        with suppress(NamespaceNotFoundError):  # never committed to, or dropped before a crash
            await self._index.drop(state.namespace)
        reach("drop.index")
        while await self._catalog.write(catalog_changes.drop_documents, state, SWEEP_BATCH):
            reach("drop.catalog")
        await self._catalog.write(catalog_names.finish_drop, state.id)
        reach("drop.finished")


def _points(plan: Plan) -> Iterator[Point]:
    for prepared in plan.to_index:
        ids = chunk_ids(plan.namespace, prepared.id, prepared.version, len(prepared.chunks))
        yield from _points_of(prepared, ids)


def _points_of(prepared: PreparedDocument, ids: Sequence[str]) -> Iterator[Point]:
    document = prepared.document
    for id_, chunk, embedding in zip(ids, prepared.chunks, prepared.embeddings, strict=True):
        yield Point(
            id=id_,
            vector=embedding.vector,
            text=chunk.context + document.text[chunk.start : chunk.end],
            metadata=document.metadata,
            document_id=prepared.id,
            start=chunk.start,
            end=chunk.end,
            groups=prepared.groups or (),
        )


def _ended_ids(plan: Plan) -> Iterator[str]:
    for stored in plan.ended:
        yield from chunk_ids(plan.namespace, stored.id, stored.version, stored.total_chunks)


def _slices(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while part := list(islice(remaining, SLICE)):
        yield part
