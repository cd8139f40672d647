"""A point as Qdrant's engine stores it, and back: its id, its two vectors, and a payload of seven short fields.

Metadata lies twice: as keywords and numbers for the filters (edge_filter), and whole, as one JSON string, to be given
back exactly. No field name of a user's ever becomes one of the engine's.
"""

from typing import TypeGuard
from uuid import UUID, uuid5

import numpy as np
import qdrant_edge as engine

from indexers.base import CHUNK_ID, Float32, IndexUnavailableError, Point, StoredPoint
from indexers.bm25 import Terms
from indexers.edge_filter import BORN, DIED, GROUPS, NUMBERS, TOKENS, Slots, numbers
from indexers.keywords import group_keywords, keywords
from indexers.payload import pack, unpack

ID, REST = "i", "m"
DENSE, TEXT = "dense", "text"  # the two named vectors
_BORN_BITS = 34
_LOW_62 = 2**62 - 1
_IDENTITY = UUID("6a4e6f3c-3a52-5f0b-9d3f-0f7f5c1f6f10")


def engine_id(point_id: str, born: int) -> UUID:
    """The engine's id of one version of a point: it takes UUIDs only, and a version is stored beside the next one.

    A chunk's id is carried whole in a UUID of version 8 (RFC 9562), 88 bits and 34 for the commit, so that a hit's id
    needs no look at its payload; any other id is hashed (UUIDv5) and kept in the payload.
    """
    if born >> _BORN_BITS or not CHUNK_ID.fullmatch(point_id):
        return uuid5(_IDENTITY, f"{point_id}\0{born}")
    bits = int(point_id[4:], 16) << _BORN_BITS | born
    return UUID(int=(bits >> 74) << 80 | 8 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & _LOW_62)


def carries_id(version: int | str | UUID) -> TypeGuard[UUID]:
    """Whether the engine's id carries the point's; such ids are ordered as the points' are."""
    return isinstance(version, UUID) and version.int >> 76 & 0xF == 8


def carried_id(version: UUID) -> str:
    """The point's id in an engine's id that carries it."""
    packed = version.int
    bits = (packed >> 80) << 40 | (packed >> 64 & 0xFFF) << 28 | (packed & _LOW_62) >> _BORN_BITS
    return f"chk_{bits:022x}"


def sparse(terms: Terms) -> engine.SparseVector:
    return engine.SparseVector(terms.ids.tolist(), terms.weights.tolist())


def encode(point: Point, terms: engine.SparseVector | None, born: int, slots: Slots) -> engine.Point:
    """A checked point (indexers.point) as the engine's. `slots` must know every numeric field of it."""
    payload: dict[str, object] = {
        ID: point.id,
        BORN: born,
        GROUPS: group_keywords(point.groups),
        REST: pack(point),
    }
    if point.metadata:
        payload[TOKENS] = keywords(point.metadata)
        payload[NUMBERS] = numbers(point.metadata, slots)
    vectors: dict[str, list[float] | list[list[float]] | engine.SparseVector] = {DENSE: point.vector.tolist()}
    if terms is not None and terms.indices:
        vectors[TEXT] = terms
    return engine.Point(engine_id(point.id, born), vectors, payload)


def decode(record: engine.Record) -> StoredPoint:
    """A record with payload and vectors as what was stored; the text is not given back, only its terms are kept."""
    payload = record.payload or {}
    return StoredPoint(unpack(payload[ID], payload[REST], _dense(record)), payload[BORN], payload.get(DIED))


def stored_terms(record: engine.Record) -> engine.SparseVector | None:
    """The BM25 terms of a record with vectors, as they were stored."""
    terms = record.vector.get(TEXT) if isinstance(record.vector, dict) else None
    return terms if isinstance(terms, engine.SparseVector) else None


def _dense(record: engine.Record) -> Float32:
    if not isinstance(record.vector, dict):
        raise IndexUnavailableError(f"point {record.id!r} has lost its vector; run `refdesk repair`")
    return np.array(record.vector[DENSE], np.float32)
