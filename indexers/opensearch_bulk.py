"""Bulk writes to OpenSearch: operations into requests of a bearable size, and answers judged item by item."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from indexers.base import IndexerError, IndexUnavailableError, NamespaceNotFoundError
from indexers.retry import wait_of_status

BULK_OPERATIONS = 500
BULK_BYTES = 5 * 2**20


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a bulk request: index a document, update one with some fields, or delete one."""

    action: Literal["index", "update", "delete"]
    alias: str
    key: str
    routing: str | None
    document: bytes = b""  # JSON

    def encoded(self) -> bytes:
        target = {"_index": self.alias, "_id": self.key}
        if self.routing is not None:
            target["routing"] = self.routing
        head = orjson.dumps({self.action: target}) + b"\n"
        if self.action == "delete":
            return head
        return head + (b'{"doc":' + self.document + b"}" if self.action == "update" else self.document) + b"\n"


Lines = list[tuple[Operation, bytes]]  # with their encoded form


class StaleMappingError(IndexUnavailableError):
    """A document uses a field that its index does not have (any more)."""


class Postponed(Exception):
    """Items of a bulk request that the cluster did not take for the moment."""


def batches(operations: Sequence[Operation]) -> Iterator[Lines]:
    batch: Lines = []
    size = 0
    for operation in operations:
        line = operation.encoded()
        if batch and (len(batch) == BULK_OPERATIONS or size + len(line) > BULK_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((operation, line))
        size += len(line)
    if batch:
        yield batch


def judge(sent: Lines, items: Sequence[Mapping[str, Any]]) -> tuple[Lines, Postponed | None]:
    """What is to be sent again, and why. Raises for the first item that was refused for good."""
    again: Lines = []
    why: Postponed | None = None
    refused: IndexerError | None = None
    for (operation, line), item in zip(sent, items, strict=True):
        result = item[operation.action]
        status, error = int(result["status"]), result.get("error", {})
        if 200 <= status < 300 or (status == 404 and _is_missing(operation, error)):
            continue
        reason = f"{operation.action}: {without_text(str(error.get('reason', status)))}"
        if status == 409 or wait_of_status(status, None) is not None:
            again.append((operation, line))
            why = Postponed(f"{reason} ({len(again)} of {len(sent)} items)")
        elif error.get("type") == "strict_dynamic_mapping_exception":
            refused = refused or StaleMappingError(f"OpenSearch: bulk {reason}; the index was changed: retry")
        elif status == 404:
            refused = refused or NamespaceNotFoundError(f"OpenSearch: bulk {reason}")
        else:
            refused = refused or IndexUnavailableError(f"OpenSearch refuses a document for good: {reason} ({status})")
    if refused is not None:
        raise refused
    return again, why


def _is_missing(operation: Operation, error: Mapping[str, object]) -> bool:
    """Whether a 404 says of the document, not of its index, that it is not there."""
    return operation.action != "index" and error.get("type") in (None, "document_missing_exception")


def without_text(reason: str) -> str:
    """A reason without the piece of a document that some end with."""
    return reason.split("Preview of field")[0].strip()
