"""Documents and citations over the wire: what an upload says of itself, and documents, receipts and verdicts out."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message, Receive

from indexers.base import Metadata, UnreadableError
from indexers.filter import Filter, number, parse_filter
from server.base import DocumentPatch, InvalidRequestError, Principal, StoredDocument
from server.ingest import Receipt, Tally

T = TypeVar("T")

MAX_URI_CHARS = 1024
MAX_NAMED = 1000  # documents of one request
_TAIL_BYTES = 2048  # a boundary has 70 at most, and little may follow the last one
_JOINERS = "\u200c\u200d"  # of Persian, of Indian scripts, of emoji
FIELDS = {"collection", "namespace", "groups", "metadata", "background"}


def _exact(value: object) -> object:
    """Raises ValueError for an integer that float64, which metadata's numbers are, would round."""
    if isinstance(value, int) and number(value) is None:
        raise ValueError("no float64 holds this integer exactly: send it as a string")
    return value


Number = Annotated[StrictFloat, BeforeValidator(_exact)]
MetadataBody = dict[str, StrictStr | StrictBool | Number | list[StrictStr]]
_METADATA = TypeAdapter(MetadataBody)


class VerifyBody(BaseModel):
    """A citation as an answer gave it; of its other fields nothing is needed. `quote` or `quote_sha256`."""

    model_config = ConfigDict(extra="ignore")

    document_id: str
    version: str
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    quote: str | None = None
    quote_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class PatchBody(BaseModel):
    """What is to be beside a document's text: metadata to add, groups instead of the present ones, or both."""

    model_config = ConfigDict(extra="forbid")

    metadata: dict[str, object] | None = None
    groups: list[str] | None = None

    def of(self, document_id: str) -> DocumentPatch:
        """The patch of a document. Raises InvalidRequestError."""
        if self.metadata is None and self.groups is None:
            raise InvalidRequestError("nothing to change: give metadata, groups or both", "metadata")
        groups = None if self.groups is None else tuple(sorted(set(self.groups)))
        return DocumentPatch(document_id, _metadata(_METADATA.validate_python, self.metadata or {}), groups)


class DeleteBody(BaseModel):
    """Documents of one namespace: exactly one of `ids`, `uris` and `filter`. An unknown field is refused."""

    model_config = ConfigDict(extra="forbid")

    collection: str | None = None
    namespace: str | None = None
    ids: list[str] | None = Field(None, min_length=1, max_length=MAX_NAMED)
    uris: list[str] | None = Field(None, min_length=1, max_length=MAX_NAMED)
    filter: dict[str, object] | None = None

    def check(self) -> None:
        """Raises InvalidRequestError unless it is one of the three that is given."""
        if sum(given is not None for given in (self.ids, self.uris, self.filter)) != 1:
            raise InvalidRequestError("give exactly one of ids, uris and filter: what of the namespace is to go?")

    def parsed_filter(self) -> Filter | None:
        """The filter; None if none is given. Raises FilterError, InvalidRequestError for an empty one."""
        if self.filter == {}:
            raise InvalidRequestError(
                "filter: {} would delete every document: for that, drop the namespace (refdesk delete --all, or "
                "DELETE /v1/namespaces/{namespace})",
                "filter",
            )
        return parse_filter(self.filter)


def uploads(form: FormData) -> list[UploadFile]:
    """The files of an upload, whatever their field is called. Raises InvalidRequestError."""
    named = {name for name, value in form.multi_items() if isinstance(value, UploadFile)} & FIELDS
    if named:  # as a document it would be searchable, and the upload without its groups
        raise InvalidRequestError(
            f"the field {min(named)!r} came as a file: send it as a plain form field, without a file name", min(named)
        )
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise InvalidRequestError("no file: send multipart/form-data with one or more files", "file")
    unknown = {name for name, value in form.multi_items() if isinstance(value, str)} - FIELDS
    if unknown:
        raise InvalidRequestError(
            f"unknown field {min(unknown)!r}: there are {', '.join(sorted(FIELDS))}", min(unknown)
        )
    return files


class Whole:
    """A request's `receive` that remembers how the body ended: the parser takes a form that was cut off for one that is
    whole, and its last field, which may say who may read the upload, for what had come of it."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._tail = receive, b""

    async def __call__(self) -> Message:
        message = await self._receive()
        self._tail = (self._tail + message.get("body", b""))[-_TAIL_BYTES:]
        return message

    def check(self, content_type: str) -> None:
        """Raises InvalidRequestError for a multipart body without its closing boundary."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind == b"multipart/form-data" and b"--" + boundary + b"--" not in self._tail:
            raise InvalidRequestError("the form is cut off before its closing boundary: send it again")


def text_field(form: FormData, name: str) -> str | None:
    """A form field's text; None if it is missing or empty."""
    value = form.get(name)
    return value if isinstance(value, str) and value else None


def background_field(form: FormData) -> bool:
    """Whether the reply is to come before the work is done. Raises InvalidRequestError."""
    given = text_field(form, "background") or "false"
    if given not in {"true", "false"}:
        raise InvalidRequestError(f"background={given!r:.40}: write true or false", "background")
    return given == "true"


def groups_field(form: FormData) -> tuple[str, ...] | None:
    """The groups that may read the upload: the field repeated, or one with commas; None without it.

    Raises InvalidRequestError.
    """
    given = [value for value in form.getlist("groups") if isinstance(value, str)]
    if not given:
        return None
    if any(value.lstrip().startswith("[") for value in given):  # nobody would be of a group '["board"'
        raise InvalidRequestError("groups: no JSON here: repeat the field, or write names with commas", "groups")
    return tuple(sorted({group.strip() for value in given for group in value.split(",")} - {""}))


def metadata_field(form: FormData) -> Metadata:
    """The upload's metadata: a JSON object of strings, numbers, booleans and lists of strings."""
    return _metadata(_METADATA.validate_json, text_field(form, "metadata") or "{}")


def _metadata(validate: Callable[[T], MetadataBody], given: T) -> Metadata:
    try:
        return validate(given)
    except ValidationError as exc:
        first = next((e for e in exc.errors() if e["type"] == "value_error"), exc.errors()[0])
        field = f" at {first['loc'][0]!r}" if first["loc"] else ""
        raise InvalidRequestError(
            f"metadata{field}: {first['msg']}; send a JSON object of strings, numbers, booleans and lists of strings",
            "metadata",
        ) from exc


def uris_of(files: Sequence[UploadFile]) -> list[str]:
    """The uris that files go by: their names, relative paths allowed. Raises InvalidRequestError, for a second of one
    name too."""
    uris = [_uri_of(file) for file in files]
    twice = [uri for uri, count in Counter(uris).items() if count > 1]
    if twice:
        raise InvalidRequestError(f"several files are called {twice[0]!r:.100}: a name may stand once", "file")
    return uris


def _uri_of(file: UploadFile) -> str:
    name = unicodedata.normalize("NFC", (file.filename or "").replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if not parts or ".." in parts or len(name) > MAX_URI_CHARS or not all(map(_is_shown, name)):
        raise InvalidRequestError(f"{name!r:.100} is no usable file name: give a printable relative one", "file")
    return "/".join(parts)


def _is_shown(char: str) -> bool:
    """Whether a character may stand in a name: spaces of any width and joiners may, but nothing that turns the line."""
    return char.isprintable() or unicodedata.category(char) == "Zs" or char in _JOINERS


# --- out -----------------------------------------------------------------------------------------------------------


def document_reply(document: StoredDocument, collection: str, namespace: str, caller: Principal) -> dict[str, object]:
    """A document; its groups only for those who may write."""
    reply: dict[str, object] = {
        "object": "document",
        "id": document.id,
        "collection": collection,
        "namespace": namespace,
        "uri": document.uri,
        "title": document.title,
        "media_type": document.media_type,
        "version": document.version,
        "source_sha256": document.source_sha256,
        "metadata": dict(document.metadata),
        "size_chars": document.size_chars,
        "total_chunks": document.total_chunks,
        "commit": document.born,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }
    if not caller.roles.isdisjoint({"write", "admin"}):
        reply["groups"] = document.groups
    return reply


def receipt_reply(receipt: Receipt) -> bytes:
    """What an upload did."""
    tally = receipt.tally
    return orjson.dumps(
        {
            "object": "receipt",
            "added": tally.added,
            "replaced": tally.replaced,
            "patched": tally.patched,
            "unchanged": tally.unchanged,
            "pruned": tally.pruned,
            "chunks": tally.chunks,
            "tokens": tally.tokens,
            "bytes": tally.bytes,
            "failed": failures_reply(tally.failures),
            "document_ids": receipt.document_ids,
            "commit": receipt.commit,
            "seconds": receipt.seconds,
            "stages_s": receipt.stages_s,
        }
    )


def progress_reply(tally: Tally) -> bytes:
    """Where an ingestion stands; `sources` null while their number is not known."""
    names = ("sources", "read", "bytes", "added", "replaced", "unchanged", "chunks")
    counts = {name: getattr(tally, name) for name in names}
    return orjson.dumps({"object": "progress", **counts, "failed": len(tally.failures)})


def failures_reply(failures: Sequence[UnreadableError]) -> list[dict[str, str]]:
    return [{"uri": f.source, "reason": f.reason, "detail": f.detail} for f in failures]
