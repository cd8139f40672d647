"""Documents to searchable chunks in stages with bounded queues between them: read → keep → chunk → embed → commit.

Memory holds a few windows of chunks, whatever the corpus; a file that cannot be read is set aside and stops nothing.
Chunking and embedding are in prepare.py, the commits in group.py.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from indexers.base import Document, GiveWay, Metadata, UnreadableError, at_once
from indexers.chunk import Chunker
from indexers.read import ReadResult, extractor, is_current, read
from indexers.sources import Source, Upload
from models.base import Embedder
from models.priority import BulkThreads
from server.base import (
    Changes,
    DocumentPatch,
    NamespaceState,
    Origin,
    PreparedDocument,
    StoredDocument,
    document_id,
    document_version,
)
from server.catalog import Catalog
from server.commit import Writer
from server.fetch import AnySource, Sources, batches, loaded
from server.group import BeforeCommit, Grouping
from server.originals import AT_ONCE, Originals
from server.prepare import NewText, Preparation, Read, Window
from server.prune import prune, prune_parts
from server.settings import Settings
from server.telemetry import Stages

LOOKUP = 64  # sources whose stored state is looked up in one catalog read
_LARGE_BYTES = 4 * 2**20  # an original of more is stored before the next source is read: memory holds few of these


@dataclass(frozen=True, slots=True)
class Target:
    """Where documents go, who may read them, and whether what the source lost is deleted.

    `groups` (): everyone who may read the namespace; None: who may read them now, of a new document everyone.
    """

    collection: str
    namespace: str = "default"
    groups: tuple[str, ...] | None = None
    metadata: Metadata = field(default_factory=dict)
    prune: bool = False


@dataclass(slots=True)
class Tally:
    """Counts of one ingestion while it runs. `sources` None: not known beforehand."""

    sources: int | None = None
    read: int = 0  # sources looked at
    bytes: int = 0
    added: int = 0
    replaced: int = 0
    patched: int = 0
    unchanged: int = 0
    pruned: int = 0
    chunks: int = 0  # committed
    tokens: int = 0  # of these chunks
    failures: list[UnreadableError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an ingestion did. `document_ids`: all that its sources hold, those unchanged too, as each was found so."""

    tally: Tally
    commit: int
    seconds: float
    document_ids: tuple[str, ...]
    stages_s: Mapping[str, float] = field(default_factory=dict)  # busy in each stage; they run side by side


OnProgress = Callable[[Tally], None]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A document on its way to be chunked while its source's bytes are being stored; None: the stored one's bytes and
    text are the source's still."""

    document: Document | None
    stored: StoredDocument | None
    origin: "asyncio.Task[Origin]"


class Ingestion:
    """One run over some sources into one namespace."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        writer: Writer,
        *,
        embedder: Embedder,
        chunker: Chunker,
        target: Target,
        on_progress: OnProgress = lambda _: None,
        before_commit: BeforeCommit = at_once,
        give_way: GiveWay = at_once,
        originals: Originals | None = None,
    ) -> None:
        """`before_commit` is awaited before each commit: what does not return, or raises, keeps it from being made;
        `give_way` before what holds the interpreter."""
        self.settings, self.catalog, self.writer = settings, catalog, writer
        self.embedder, self.chunker, self.target, self.on_progress = embedder, chunker, target, on_progress
        self.before_commit, self.give_way = before_commit, give_way
        self.originals = originals if originals is not None and originals.keeps else None
        self.tally, self.stages = Tally(), Stages()
        self.threads = BulkThreads(2, "ingest")
        self.seen: set[str] = set()
        self.split: list[str] = []  # sources that held other documents than themselves
        self.failed: set[str] = set()  # of the sources at hand, those that are set aside
        self.new: set[str] = set()  # ids read and not yet committed that the namespace did not hold before
        self.settled: list[str] = []

    async def run(self, sources: Sources) -> Receipt:
        """Ingest; returns when the last commit is visible. What was committed before an error stays committed."""
        started = time.monotonic()
        state = await self.catalog.namespace(self.target.collection, self.target.namespace, create=True)
        self.tally.sources = len(sources) if isinstance(sources, Sequence) else None
        most = self.settings.commit_documents
        preparation = Preparation(self._cut_in_turn, self.embedder, max_documents=most, stages=self.stages)
        grouping = Grouping(
            self.settings,
            self.writer,
            state,
            before_commit=self.before_commit,
            on_commit=self._count,
            set_aside=self._set_aside,
            stages=self.stages,
        )
        keeping: asyncio.Queue[_Kept | None] = asyncio.Queue(AT_ONCE)
        documents: asyncio.Queue[Read | None] = asyncio.Queue(LOOKUP)
        windows: asyncio.Queue[Window | None] = asyncio.Queue(1)
        prepared: asyncio.Queue[Changes | None] = asyncio.Queue(2)
        try:
            async with asyncio.TaskGroup() as self.tasks:
                self.tasks.create_task(self._read(sources, state, keeping, documents))
                self.tasks.create_task(self._hand_on(keeping, documents))
                self.tasks.create_task(preparation.chunk(documents, windows))
                self.tasks.create_task(preparation.embed(windows, prepared))
                self.tasks.create_task(grouping.commit(prepared))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            self.threads.close()
        self.tally.pruned = await prune_parts(self.catalog, self.writer, state, self.split, self.seen)
        if self.target.prune:
            failed = {failure.source for failure in self.tally.failures}
            self.tally.pruned += await prune(self.catalog, self.writer, state, self.seen, failed)
        state = await self.catalog.namespace(self.target.collection, self.target.namespace)
        seconds = time.monotonic() - started
        return Receipt(self.tally, state.commit, seconds, tuple(self.settled), self.stages.seconds)

    # --- read ------------------------------------------------------------------------------------------------------

    async def _read(
        self,
        sources: Sources,
        state: NamespaceState,
        keeping: "asyncio.Queue[_Kept | None]",
        documents: "asyncio.Queue[Read | None]",
    ) -> None:
        async with aclosing(batches(sources, LOOKUP)) as found:
            async for batch in found:
                uris = [source.uri for source in batch]
                known = await self.catalog.lookup(state.id, uris)
                self.failed = await self.catalog.failed(state.id, uris)
                changed = []
                for source in batch:
                    self.seen.add(source.uri)
                    stored = known.get(source.uri)
                    if stored is not None and self._is_same_mark(stored, source):
                        await self._keep(stored, None, Origin(stored.original, stored.source_mark), documents)
                        self._count_read()
                    else:
                        changed.append(source)
                await self._load(changed, known, state, keeping)
        await keeping.put(None)

    def _count_read(self) -> None:
        self.tally.read += 1
        self.on_progress(self.tally)

    async def _load(
        self,
        batch: Sequence[AnySource],
        known: Mapping[str, StoredDocument],
        state: NamespaceState,
        keeping: "asyncio.Queue[_Kept | None]",
    ) -> None:
        async with aclosing(loaded(batch, self.settings.max_upload_bytes)) as found:
            while True:
                with self.stages.span("load"):
                    item = await anext(found, None)
                if item is None:
                    return
                source, data = item
                if isinstance(data, UnreadableError):
                    await self._set_aside(state, data)
                else:
                    self.tally.bytes += len(data)
                    await self._read_source(source, data, known.get(source.uri), state=state, keeping=keeping)
                self._count_read()

    async def _read_source(
        self,
        source: AnySource,
        data: bytes,
        stored: StoredDocument | None,
        *,
        state: NamespaceState,
        keeping: "asyncio.Queue[_Kept | None]",
    ) -> None:
        async def keep(document: Document | None, before: StoredDocument | None, sha256: str, part: bytes) -> None:
            origin = self.tasks.create_task(self._origin(before, sha256, part, source))
            if len(part) > _LARGE_BYTES:
                await asyncio.wait({origin})
            await keeping.put(_Kept(document, before, origin))

        try:
            with self.stages.span("read"):
                sha256, result = await self.threads.run(self._examine, source, data, stored)
        except UnreadableError as exc:
            await self._set_aside(state, exc)
            return
        if result is None:
            if source.uri in self.failed and stored is not None:
                # what was lost of these very bytes, when they were read, is lost still
                await self.catalog.clear_failures(state.id, [source.uri], since=stored.updated_at)
            await keep(None, stored, sha256, data)
            return
        for failure in result.failures:
            await self._set_aside(state, failure)
        uris, known = [document.uri for document in result.documents], {source.uri: stored}
        if uris != [source.uri] or source.uri in self.failed:
            known = {**known, **await self.catalog.lookup(state.id, uris)}
            await self.catalog.clear_failures(state.id, {source.uri, *uris} - {f.source for f in result.failures})
        if uris != [source.uri]:
            self.split.append(source.uri)
        for document in result.documents:
            part = result.parts.get(document.uri, data)
            await keep(document, known.get(document.uri), document.source_sha256, part)

    def _examine(self, source: AnySource, data: bytes, stored: StoredDocument | None) -> tuple[str, ReadResult | None]:
        """In a thread: the digest of a source's bytes, and what they hold, or None if that is what is stored."""
        media_type = source.media_type if isinstance(source, Upload) else None
        sha256 = hashlib.sha256(data).hexdigest()
        reader = extractor(data, source.uri, media_type=media_type)
        if stored is not None and self._is_same_source(stored, sha256, reader):
            return sha256, None
        max_bytes = self.settings.max_upload_bytes
        return sha256, read(data, source.uri, media_type=media_type, max_bytes=max_bytes)

    # --- keep ------------------------------------------------------------------------------------------------------

    async def _hand_on(self, keeping: "asyncio.Queue[_Kept | None]", documents: "asyncio.Queue[Read | None]") -> None:
        """Documents in order, each once its source's bytes are stored; several are being stored at once."""
        while (kept := await keeping.get()) is not None:
            origin = await kept.origin
            if kept.document is None:
                assert kept.stored is not None
                await self._keep(kept.stored, None, origin, documents)
            else:
                await self._hand_on_document(kept.document, kept.stored, origin, documents)
        await documents.put(None)

    async def _hand_on_document(
        self,
        document: Document,
        before: StoredDocument | None,
        origin: Origin,
        documents: "asyncio.Queue[Read | None]",
    ) -> None:
        self.seen.add(document.uri)
        document = replace(document, metadata={**document.metadata, **self.target.metadata})
        if (
            before is not None
            and before.version == document_version(document, self.chunker.fingerprint)
            # a patch adds; what takes away is a new text
            and (_is_of_same_bytes(before, document) or before.metadata.keys() <= document.metadata.keys())
        ):
            await self._keep(before, document, origin, documents)
            return
        if before is None:
            self.new.add(document_id(self.target.collection, self.target.namespace, document.uri))
        await documents.put(NewText(document, origin))

    async def _origin(self, stored: StoredDocument | None, sha256: str, data: bytes, source: AnySource) -> Origin:
        """Where a document's bytes are from now on: they are stored, unless they are already."""
        mark = "" if isinstance(source, Source | Upload) else source.mark
        if stored is not None and stored.source_sha256 == sha256 and (stored.original or self.originals is None):
            return Origin(stored.original, mark)
        if self.originals is None:
            return Origin("", mark)
        with self.stages.span("keep"):
            return Origin(await self.originals.keep(data, sha256), mark)

    def _is_same_source(self, stored: StoredDocument, sha256: str, reader: str) -> bool:
        return (stored.source_sha256, stored.extractor, stored.chunking) == (sha256, reader, self.chunker.fingerprint)

    def _is_same_mark(self, stored: StoredDocument, source: AnySource) -> bool:
        """Whether an object's listing says that it is the one that was read, so that it need not be fetched."""
        if isinstance(source, Source | Upload) or not source.mark or stored.source_mark != source.mark:
            return False
        is_kept = bool(stored.original) or self.originals is None
        return is_kept and stored.chunking == self.chunker.fingerprint and is_current(stored.extractor)

    async def _keep(
        self,
        stored: StoredDocument,
        document: Document | None,
        origin: Origin,
        documents: "asyncio.Queue[Read | None]",
    ) -> None:
        """The text is the same: nothing to do, unless what is kept beside it differs; `document` None: same bytes."""
        patch = DocumentPatch(stored.id, self.target.metadata, self.target.groups, origin=origin, seen=stored)
        if document is not None:
            patch = replace(
                patch,
                metadata=document.metadata,
                source_sha256=document.source_sha256,
                extractor=document.extractor,
            )
        same_bytes = document is None or _is_of_same_bytes(stored, document)
        same_origin = origin == Origin(stored.original, stored.source_mark)
        same_metadata = {**stored.metadata, **patch.metadata} == dict(stored.metadata)
        same_beside = same_metadata and patch.groups in {None, stored.groups}
        if same_bytes and same_origin and same_beside:
            self.tally.unchanged += 1
            self.settled.append(stored.id)
        else:
            await documents.put(patch)

    async def _set_aside(self, state: NamespaceState, failure: UnreadableError) -> None:
        self.seen.add(failure.source)
        self.failed.add(failure.source)
        self.tally.failures.append(failure)
        await self.catalog.record_failure(state.id, failure.source, failure.reason, failure.detail)

    # --- chunk, commit ------------------------------------------------------------------------------------------------

    async def _cut_in_turn(self, texts: Sequence[NewText]) -> list[PreparedDocument]:
        await self.give_way()
        return await self.threads.run(self._cut, texts)

    def _cut(self, texts: Sequence[NewText]) -> list[PreparedDocument]:
        chunked = self.chunker.chunk_batch([text.document for text in texts])
        return [
            PreparedDocument(
                id=document_id(self.target.collection, self.target.namespace, text.document.uri),
                version=document_version(text.document, self.chunker.fingerprint),
                chunking=self.chunker.fingerprint,
                document=text.document,
                groups=self.target.groups,
                chunks=chunks,
                embeddings=(),
                origin=text.origin,
            )
            for text, chunks in zip(texts, chunked, strict=True)
        ]

    def _count(self, changes: Changes) -> None:
        upserts = changes.upserts
        added = sum(cut.id in self.new for cut in upserts)
        self.new.difference_update(cut.id for cut in upserts)
        self.tally.added += added
        self.tally.replaced += len(upserts) - added
        self.tally.patched += len(changes.patches)
        self.tally.chunks += sum(len(cut.chunks) for cut in upserts)
        self.tally.tokens += sum(len(chunk.token_ids) for cut in upserts for chunk in cut.chunks)
        self.settled += [cut.id for cut in upserts] + [patch.id for patch in changes.patches]
        self.on_progress(self.tally)


def _is_of_same_bytes(stored: StoredDocument, document: Document) -> bool:
    """Whether both were read from the same bytes, by the same reader."""
    return (stored.source_sha256, stored.extractor) == (document.source_sha256, document.extractor)
