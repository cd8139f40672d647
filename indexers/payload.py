"""What an engine keeps of a point beside what it searches: everything else as one JSON string, given back exactly."""

import json

import numpy as np

from indexers.base import Float32, Point


def pack(point: Point) -> str:
    """A point's metadata, document, span, groups and norm; not its id, text and direction."""
    kept = {
        "metadata": point.metadata,
        "document": point.document_id,
        "span": [point.start, point.end],
        "groups": point.groups,
        "norm": float(np.linalg.norm(point.vector)),  # under the cosine metric engines keep the direction only
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def unpack(point_id: str, packed: str, vector: Float32) -> Point:
    """The point as it was; `vector` is what the engine kept of its own: it gets its length back."""
    kept = json.loads(packed)
    return Point(
        id=point_id,
        vector=_scaled(vector, kept["norm"]),
        metadata=kept["metadata"],
        document_id=kept["document"],
        start=kept["span"][0],
        end=kept["span"][1],
        groups=tuple(kept["groups"]),
    )


def _scaled(vector: Float32, norm: float) -> Float32:
    stored = float(np.linalg.norm(vector))
    is_scaled = stored > 0 and abs(norm - stored) > 1e-5 * stored
    return np.asarray(vector * (norm / stored), np.float32) if is_scaled else vector
