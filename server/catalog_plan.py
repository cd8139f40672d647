"""What a commit will write into the catalog, read before anything is written."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from indexers.base import Metadata
from server import catalog_documents, catalog_names
from server.base import (
    Changes,
    DocumentPatch,
    InvalidRequestError,
    NamespaceState,
    Origin,
    PreparedDocument,
    StoredDocument,
    chunk_id,
)


@dataclass(frozen=True, slots=True)
class Patched:
    """A document whose text stays: what is kept beside it from now on, and its live chunks."""

    stored: StoredDocument
    metadata: Metadata
    groups: tuple[str, ...]
    source_sha256: str
    extractor: str
    origin: Origin
    chunk_ids: tuple[str, ...]

    @property
    def reaches_index(self) -> bool:
        return dict(self.metadata) != dict(self.stored.metadata) or self.groups != self.stored.groups


@dataclass(frozen=True, slots=True)
class Plan:
    """A commit's changes, held against what the catalog has. `kept` are upserts whose text is the present one."""

    number: int
    namespace: NamespaceState
    written: tuple[PreparedDocument, ...] = ()  # upserts with a text other than the present one
    kept: tuple[PreparedDocument, ...] = ()
    patched: tuple[Patched, ...] = ()
    deleted: tuple[StoredDocument, ...] = ()
    present: dict[str, StoredDocument] = field(default_factory=dict)
    token_bits_of: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.written or self.kept or self.patched or self.deleted)

    @property
    def to_index(self) -> Iterator[PreparedDocument]:
        """Documents whose points must be written: new texts, and kept ones whose points differ or went missing."""
        yield from self.written
        for prepared in self.kept:
            stored = self.present[prepared.id]
            same = (dict(stored.metadata), stored.groups) == (dict(prepared.document.metadata), prepared.groups)
            if not same or not stored.source_sha256:
                yield prepared

    @property
    def ended(self) -> Iterator[StoredDocument]:
        """Documents whose present version ends with this commit."""
        yield from (self.present[prepared.id] for prepared in self.written if prepared.id in self.present)
        yield from self.deleted

    @property
    def lost_originals(self) -> tuple[str, ...]:
        """Objects that no document refers to after this commit."""
        new = {
            prepared.id: origin_of(prepared, self.present.get(prepared.id)) for prepared in (*self.written, *self.kept)
        }
        new |= {patched.stored.id: patched.origin for patched in self.patched}
        replaced = (
            self.present[id_].original
            for id_, origin in new.items()
            if id_ in self.present and self.present[id_].original != origin.original
        )
        return tuple(name for name in (*replaced, *(stored.original for stored in self.deleted)) if name)


def origin_of(prepared: PreparedDocument, stored: StoredDocument | None) -> Origin:
    """Where an upsert's bytes are; if it does not say, where those of the document are, if they are the same."""
    same_bytes = stored is not None and stored.source_sha256 == prepared.document.source_sha256
    if stored is not None and same_bytes and prepared.origin == Origin():
        return Origin(stored.original, stored.source_mark)
    return prepared.origin


def chunk_ids(namespace: NamespaceState, document_id: str, version: str, count: int) -> tuple[str, ...]:
    """The ids of a version's chunks: they follow from what it is, so nothing need be read."""
    names = (namespace.namespace.collection.name, namespace.namespace.name)
    return tuple(chunk_id(*names, document_id, version, index) for index in range(count))


def plan(connection: Connection, namespace_key: int, changes: Changes, token_bits_of: str) -> Plan:
    """Hold changes against the present state. Raises InvalidRequestError; NotFoundError or GoneError for a patch of no
    document, unless it names the one it was made for: then another writer was faster."""
    namespace = catalog_names.namespace_by_key(connection, namespace_key)
    upserts = {prepared.id: prepared for prepared in changes.upserts}  # the last of several with one id
    patches = {patch.id: patch for patch in changes.patches}
    _refuse_contradictions(set(upserts), set(patches), set(changes.deletes))
    present = catalog_documents.some(connection, namespace_key, [*upserts, *patches, *dict.fromkeys(changes.deletes)])
    upserts = {id_: _with_groups(new, present.get(id_)) for id_, new in upserts.items()}
    for id_, patch in patches.items():
        if patch.seen is None and id_ not in present:
            raise catalog_documents.absent(connection, id_)
    kept = {id_ for id_, new in upserts.items() if id_ in present and present[id_].version == new.version}
    return Plan(
        number=namespace.commit + 1,
        namespace=namespace,
        written=tuple(new for id_, new in upserts.items() if id_ not in kept),
        kept=tuple(new for id_, new in upserts.items() if id_ in kept and not _is_unchanged(new, present[id_])),
        patched=tuple(p for patch in patches.values() if (p := _patched(namespace, patch, present)) is not None),
        deleted=tuple(_deleted(changes, present)),
        present=present,
        token_bits_of=token_bits_of,
    )


def _with_groups(new: PreparedDocument, stored: StoredDocument | None) -> PreparedDocument:
    """An upsert that says who may read it."""
    if new.groups is not None:
        return new
    return replace(new, groups=() if stored is None else stored.groups)


def _deleted(changes: Changes, present: dict[str, StoredDocument]) -> Iterator[StoredDocument]:
    for id_ in dict.fromkeys(changes.deletes):
        if id_ in present and (changes.may_go is None or changes.may_go(present[id_])):
            yield present[id_]


def _is_unchanged(new: PreparedDocument, stored: StoredDocument) -> bool:
    document = new.document
    origin = origin_of(new, stored)
    beside = (document.source_sha256, document.extractor, document.media_type, dict(document.metadata), new.groups)
    return (*beside, origin.original, origin.source_mark) == (
        stored.source_sha256,
        stored.extractor,
        stored.media_type,
        dict(stored.metadata),
        stored.groups,
        stored.original,
        stored.source_mark,
    )


def _source(stored: StoredDocument) -> tuple[str, str, str]:
    return stored.version, stored.source_sha256, stored.original


def _refuse_contradictions(upserts: set[str], patches: set[str], deletes: set[str]) -> None:
    twice = (upserts & patches) | (upserts & deletes) | (patches & deletes)
    if twice:
        raise InvalidRequestError(f"one commit changes document {min(twice)!r} in two ways: use a commit for each")


def _patched(namespace: NamespaceState, patch: DocumentPatch, present: dict[str, StoredDocument]) -> Patched | None:
    """The patch as the state it leads to; None if that is the present one, or not of what the patch was made for."""
    stored = present.get(patch.id)
    if stored is None or (patch.seen is not None and _source(stored) != _source(patch.seen)):
        return None
    result = Patched(
        stored=stored,
        metadata={**stored.metadata, **patch.metadata},
        groups=stored.groups if patch.groups is None else patch.groups,
        source_sha256=stored.source_sha256 if patch.source_sha256 is None else patch.source_sha256,
        extractor=stored.extractor if patch.extractor is None else patch.extractor,
        origin=patch.origin or Origin(stored.original, stored.source_mark),
        chunk_ids=chunk_ids(namespace, stored.id, stored.version, stored.total_chunks),
    )
    known = (stored.source_sha256, stored.extractor, Origin(stored.original, stored.source_mark))
    same_source = (result.source_sha256, result.extractor, result.origin) == known
    return None if same_source and not result.reaches_index else result
