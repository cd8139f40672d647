"""A point as a Qdrant server stores it, and back. No field name of a user's ever becomes one of the server's."""

from uuid import UUID, uuid5

import numpy as np
from qdrant_client import models

from indexers.base import IndexUnavailableError, Namespace, Point, StoredPoint
from indexers.keywords import group_keywords, halves, keyword, keywords
from indexers.payload import pack, unpack
from indexers.qdrant_filter import BORN, DIED, GROUPS, ID, KEYWORDS, NAMESPACE, NUMBERS, namespace_keyword

DENSE = "dense"  # the named vector
REST = "m"
NAME = "name"  # of a namespace, in the point that says there is one
_POINTS = UUID("0f7a4d0e-7a53-5d0c-b7ed-2f62b5f0a3d1")
_NAMESPACES = UUID("b0c4c1a6-93b4-5f7e-8d55-6a4a0de0f2c7")


def server_id(namespace: str, point_id: str, born: int) -> str:
    """The server's id of one version of a point: it takes UUIDs, and all namespaces share them."""
    return str(uuid5(_POINTS, f"{len(namespace)}\0{namespace}\0{point_id}\0{born}"))


def marker_id(namespace: str) -> str:
    """The server's id of the point, without a vector, that says there is such a namespace."""
    return str(uuid5(_NAMESPACES, namespace))


def marker(namespace: Namespace) -> models.PointStruct:
    return models.PointStruct(id=marker_id(namespace.name), vector={}, payload={NAMESPACE: "", NAME: namespace.name})


def encode(namespace: str, point: Point, born: int) -> models.PointStruct:
    """A checked point (indexers.point) as the server's."""
    payload: dict[str, object] = {
        NAMESPACE: namespace_keyword(namespace),
        ID: point.id,
        BORN: born,
        GROUPS: group_keywords(point.groups),
        REST: pack(point),
    }
    if point.metadata:
        payload[KEYWORDS] = keywords(point.metadata)
        numbers = {keyword(f): list(halves(v)) for f, v in point.metadata.items() if type(v) is float}
        payload |= {NUMBERS: numbers} if numbers else {}
    return models.PointStruct(
        id=server_id(namespace, point.id, born), vector={DENSE: point.vector.tolist()}, payload=payload
    )


def decode(record: models.Record) -> StoredPoint:
    """A record with payload and vector as what was stored."""
    payload, vectors = record.payload or {}, record.vector
    if not isinstance(vectors, dict) or DENSE not in vectors:
        raise IndexUnavailableError(f"point {record.id!r} has lost its vector; run `refdesk repair`")
    point = unpack(payload[ID], payload[REST], np.array(vectors[DENSE], np.float32))
    return StoredPoint(point, int(payload[BORN]), None if DIED not in payload else int(payload[DIED]))
