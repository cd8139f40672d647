"""A point as a Pinecone record, and back; and what a View means in Pinecone's own filters.

Metadata goes as keywords and integers (indexers.keywords) and not under its own names: filters then mean the same as in
every other index, and rest on little of what Pinecone leaves open (missing fields, mixed types, odd names).
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID, uuid5

import numpy as np
import orjson

from indexers.base import InvalidPointError, Namespace, Point, StoredPoint, View
from indexers.keywords import compile_filter, conjuncts, group_keywords, halves, keyword, keywords, readable_keywords
from indexers.payload import pack, unpack

ID, BORN, DIED, GROUPS, KEYWORDS, REST = "i", "b", "d", "g", "t", "m"
FORMAT = {"v": 1}  # in every record
NEVER = 2**53  # the commit at which what lives has died: the last integer that float64 tells from its neighbours
MAX_METADATA_BYTES = 40 * 1024
_MAX_ID_CHARS = 512
_HASHES = UUID("d9a3c1c1-8f0e-5b8e-9f0e-1b7f6a2c4e55")
_ANY = "*"  # a keyword of every point, so that none lacks the field

Condition = dict[str, Any]


# --- names ---------------------------------------------------------------------------------------------------------


def record_id(point_id: str, born: int) -> str:
    """Pinecone's id of one version of a point: 512 ASCII characters at most. The point's own is in it if that fits."""
    named = f"{quote(point_id, safe='')}#{born}"
    return named if len(named) <= _MAX_ID_CHARS else f"!{uuid5(_HASHES, point_id)}#{born}"


def carried_id(record: str) -> str | None:
    """The point's own id, if Pinecone's says it."""
    return None if record.startswith("!") else unquote(record.rpartition("#")[0])


def remote_name(namespace: Namespace) -> str:
    """Pinecone's name of a namespace: one index holds those of several collections."""
    return f"{collection_prefix(namespace.collection.name)}{quote(namespace.name, safe='')}"


def collection_prefix(collection: str) -> str:
    return f"{quote(collection, safe='')}:"


def local_name(remote: str) -> str:
    return unquote(remote.partition(":")[2])


# --- records -------------------------------------------------------------------------------------------------------


def encode(point: Point, born: int) -> bytes:
    """A checked point (indexers.point) as JSON. Raises InvalidPointError for what Pinecone would not take."""
    if not point.vector.any():
        raise InvalidPointError(f"point {point.id!r}: Pinecone takes no vector of zeros only; leave the point out")
    metadata: dict[str, object] = {
        ID: point.id,
        BORN: born,
        DIED: NEVER,
        GROUPS: group_keywords(point.groups),
        KEYWORDS: [_ANY, *keywords(point.metadata)],
        REST: pack(point),
        **FORMAT,
    }
    for field, value in point.metadata.items():
        if type(value) is float:
            metadata |= dict(zip(_number_keys(field), halves(value), strict=True))
    size = len(orjson.dumps(metadata))
    if size > MAX_METADATA_BYTES:
        raise InvalidPointError(
            f"point {point.id!r}: its metadata takes {size} bytes, and Pinecone takes {MAX_METADATA_BYTES}; shorten it"
        )
    record = {"id": record_id(point.id, born), "values": point.vector, "metadata": metadata}
    return orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(record: Mapping[str, Any]) -> StoredPoint:
    """A record with values and metadata as what was stored."""
    metadata = record["metadata"]
    died = int(metadata[DIED])
    point = unpack(metadata[ID], metadata[REST], np.array(record["values"], np.float32))
    return StoredPoint(point, int(metadata[BORN]), None if died == NEVER else died)


# --- filters -------------------------------------------------------------------------------------------------------


def later_than(field: str, commit: int) -> Condition:
    return {field: {"$gt": commit}}


def under_ids(ids: Sequence[str]) -> Condition:
    return {ID: {"$in": list(ids)}}


def live(ids: Sequence[str], born_until: int) -> Condition:
    """Versions under these ids that have not died and were born at or before that commit."""
    return every([under_ids(ids), {DIED: {"$eq": NEVER}}, {BORN: {"$lte": born_until}}])


def died_within(after: int, until: int) -> Condition:
    """Died in (after, until]; what lives has died at NEVER."""
    return every([{DIED: {"$gt": after}}, {DIED: {"$lte": until}}])


def visible(view: View | None, *more: Condition) -> Condition:
    """What a view sees, or every version, and what meets `more`."""
    if view is None:
        return every([later_than(BORN, -1), *more])
    parts = [{BORN: {"$lte": view.snapshot}}, later_than(DIED, view.snapshot), *more]
    if view.groups is not None:
        parts.append({GROUPS: {"$in": readable_keywords(view.groups)}})
    wanted, unwanted = conjuncts(view.filter)
    parts += [compile_filter(part, _CONDITIONS) for part in wanted]
    parts += [_CONDITIONS.no(compile_filter(part, _CONDITIONS)) for part in unwanted]
    return every(parts)


def every(parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else {"$and": list(parts)}


class _Conditions:
    """The keywords.Dialect of Pinecone's filters, which know no negation but $nin."""

    def has_any(self, keywords: Sequence[str]) -> Condition:
        return {KEYWORDS: {"$in": list(keywords)}}

    def between(self, field: str, first: int, last: int) -> Condition:
        upper, lower = _number_keys(field)
        return {(upper if last < 2**32 else lower): {"$gte": first, "$lte": last}}

    def every(self, parts: Sequence[Condition]) -> Condition:
        return every(parts)

    def some(self, parts: Sequence[Condition]) -> Condition:
        return parts[0] if len(parts) == 1 else {"$or": list(parts)}

    def no(self, part: Condition) -> Condition:
        """Only what has_any and nothing gave is ever negated: $ne, $nin and $exists are about values."""
        ((operator, values),) = part[KEYWORDS].items()
        return {KEYWORDS: {{"$in": "$nin", "$nin": "$in"}[operator]: values}}

    def nothing(self) -> Condition:
        return {KEYWORDS: {"$nin": [_ANY]}}


_CONDITIONS = _Conditions()


def _number_keys(field: str) -> tuple[str, str]:
    """The metadata keys of a number's upper and lower half."""
    return f"u{keyword(field)}", f"l{keyword(field)}"
