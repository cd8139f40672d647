"""What every index checks of a point before it stores it, and how it brings metadata into one form."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from indexers.base import (
    CollectionSpec,
    DimensionMismatchError,
    Float32,
    InvalidPointError,
    Metadata,
    MetadataValue,
    Point,
)
from indexers.filter import is_unicode, number, shown

MAX_ID_BYTES = 512


def checked_points(spec: CollectionSpec, points: Sequence[Point]) -> list[Point]:
    """The points with float32 vectors and float64 numbers; of two under one id the later. Raises InvalidPointError
    and DimensionMismatchError, naming the point."""
    checked: dict[str, Point] = {}
    for point in points:
        check_id(point.id)
        try:
            vector = checked_vector(spec, point.vector)
            metadata = checked_metadata(point.metadata)
            check_groups(point.groups)
        except (DimensionMismatchError, InvalidPointError) as exc:
            raise type(exc)(f"point {point.id!r}: {exc}") from None
        if point.text is not None and not is_unicode(point.text):
            raise InvalidPointError(f"point {point.id!r}: its text holds a lone surrogate; replace it")
        checked[point.id] = replace(point, vector=vector, metadata=metadata, groups=tuple(dict.fromkeys(point.groups)))
    return list(checked.values())


def check_id(point_id: str) -> None:
    """Raises InvalidPointError unless the id is 1 to 512 bytes of UTF-8."""
    if not is_unicode(point_id) or not 1 <= len(point_id.encode()) <= MAX_ID_BYTES:
        shown = point_id[:40] + ("…" if len(point_id) > 40 else "")
        raise InvalidPointError(f"id {shown!r} is not 1 to {MAX_ID_BYTES} bytes of UTF-8; choose a shorter one")


def checked_vector(spec: CollectionSpec, vector: Float32) -> Float32:
    """The vector as a contiguous float32 array of the collection's dimension."""
    array = np.ascontiguousarray(vector, np.float32)
    if array.shape != (spec.dimension,):
        raise DimensionMismatchError(
            f"vector has the shape {array.shape}, but collection {spec.name!r} holds ({spec.dimension},); "
            "embed it with the collection's own model"
        )
    if not np.isfinite(array).all():
        raise InvalidPointError("vector holds NaN or infinity; embed the text again")
    return array


def checked_metadata(metadata: Metadata) -> dict[str, MetadataValue]:
    """The metadata with every number as float64. Raises InvalidPointError, naming field, value and the way out."""
    return {key: _checked_value(key, value) for key, value in metadata.items()}


def check_groups(groups: Iterable[str]) -> None:
    for group in groups:
        if not isinstance(group, str) or not group or not is_unicode(group):
            raise InvalidPointError(f"group {group!r} is no non-empty string")


def _checked_value(key: str, value: object) -> MetadataValue:
    if not isinstance(key, str) or not key or key.startswith("$") or not is_unicode(key):
        raise InvalidPointError(
            f"metadata field {shown(key)}: a name is a non-empty string that does not begin with '$' and holds no lone "
            "surrogate; rename it"
        )
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | np.integer | np.floating):
        checked = number(value.item() if isinstance(value, np.generic) else value)
        if checked is None:
            raise InvalidPointError(
                f"metadata field {shown(key)}: {shown(value)} is no finite float64; send it as a string"
            )
        return checked
    if isinstance(value, str) and is_unicode(value):
        return value
    if isinstance(value, list | tuple) and all(isinstance(v, str) and is_unicode(v) for v in value):
        return list(value)
    raise InvalidPointError(
        f"metadata field {shown(key)}: {shown(value)} is no string, number, boolean or list of strings"
    )
