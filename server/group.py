"""The last stage of an ingestion: prepared windows become commits, and what the index refuses is set aside."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from indexers.base import InvalidPointError, UnreadableError
from server.base import Changes, DocumentPatch, NamespaceState, PreparedDocument
from server.commit import Writer
from server.settings import Settings
from server.telemetry import Stages

BeforeCommit = Callable[[], Awaitable[None]]


class Grouping:
    """To run as a task; None in the queue is its end."""

    def __init__(
        self,
        settings: Settings,
        writer: Writer,
        state: NamespaceState,
        *,
        before_commit: BeforeCommit,
        on_commit: Callable[[Changes], None],
        set_aside: Callable[[NamespaceState, UnreadableError], Awaitable[None]],
        stages: Stages,
    ) -> None:
        self._settings, self._writer, self._state, self._stages = settings, writer, state, stages
        self._before_commit, self._on_commit, self._set_aside = before_commit, on_commit, set_aside

    async def commit(self, prepared: "asyncio.Queue[Changes | None]") -> None:
        """A commit closes after `commit_documents` documents or `commit_interval_s` seconds."""
        upserts: list[PreparedDocument] = []
        patches: list[DocumentPatch] = []
        since = time.monotonic()
        is_open = True
        while is_open:
            changes = await prepared.get()
            is_open = changes is not None
            if changes is not None:
                upserts.extend(changes.upserts)
                patches.extend(changes.patches)
            is_due = (
                not is_open
                or len(upserts) + len(patches) >= self._settings.commit_documents
                or time.monotonic() - since >= self._settings.commit_interval_s
            )
            if is_due and (upserts or patches):
                await self._before_commit()
                with self._stages.span("commit"):
                    await self._write(Changes(tuple(upserts), tuple(patches)))
                upserts, patches, since = [], [], time.monotonic()

    async def _write(self, changes: Changes) -> None:
        """Commit; a document that the index refuses (one numeric field too many) is set aside, the others go in."""
        try:
            await self._writer.commit(self._state, changes)
        except InvalidPointError as exc:
            uris = [new.document.uri for new in changes.upserts] + [p.seen.uri for p in changes.patches if p.seen]
            if len(uris) > 1:
                for part in changes.halves():
                    await self._write(part)
            else:
                await self._set_aside(self._state, UnreadableError(uris[0], "unsupported", str(exc)))
        else:
            self._on_commit(changes)
