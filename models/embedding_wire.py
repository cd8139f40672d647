"""Vectors in JSON, both ways: OpenAI's reply to /v1/embeddings, and token vectors beside it, which are ours.

An array travels as base64 of its little-endian bytes: float32 for vectors and a question's token vectors, bytes for a
passage's token bits.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.base import Float32, UInt8
from models.remote import MalformedReplyError, as_list, as_object

_F4 = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Item:
    """One input's reply. vector (dimension,), unit length; token_bits (tokens, dimension / 8) or token_vectors
    (tokens, dimension) if they were asked for; tokens: how many went in, special ones counted, 0 if not said."""

    vector: Float32
    token_bits: UInt8 | None = None
    token_vectors: Float32 | None = None
    tokens: int = 0


def to_base64(array: Float32 | UInt8) -> str:
    """An array's bytes as they travel."""
    little = array if array.dtype == np.uint8 else array.astype(_F4)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()


def read_items(reply: object, count: int, dimension: int | None = None) -> list[Item]:
    """The items of a reply, in the order of the inputs. Raises MalformedReplyError unless there are `count`."""
    data = [as_object(one) for one in as_list(as_object(reply).get("data"))]
    try:
        ordered = sorted(data, key=lambda one: one["index"])  # type: ignore[arg-type, return-value]
        indices = [one["index"] for one in ordered]
        items = [_item(one, dimension) for one in ordered]
    except (KeyError, TypeError, ValueError, binascii.Error) as exc:
        raise MalformedReplyError(f"embeddings that cannot be read: {exc!r}") from exc
    if len(items) != count:
        raise MalformedReplyError(f"{len(items)} embeddings for {count} inputs")
    if indices != list(range(count)):
        raise MalformedReplyError(f"embeddings whose indices are not 0 to {count - 1}, each once")
    return items


def _item(one: Mapping[str, object], dimension: int | None) -> Item:
    vector = _floats(one["embedding"])
    size = len(vector)
    if vector.ndim != 1 or not size:
        raise ValueError("an embedding that is no list of numbers")
    if dimension not in (None, size):
        raise ValueError(f"a vector of {size} numbers, not {dimension}")
    length = np.float32(np.linalg.norm(vector))
    if not np.isfinite(length):
        raise ValueError("a vector that is not finite")
    vector = np.divide(vector, length if length > 0 else np.float32(1), dtype=np.float32)
    bits, vectors, tokens = one.get("token_bits"), one.get("token_vectors"), one.get("tokens")
    return Item(
        vector,
        None if bits is None else np.frombuffer(_bytes(bits), np.uint8).reshape(-1, size // 8),
        None if vectors is None else _float32(_bytes(vectors)).reshape(-1, size),
        tokens if isinstance(tokens, int) else 0,
    )


def _floats(value: object) -> Float32:
    if isinstance(value, str):
        return _float32(_bytes(value))
    return np.array(as_list(value), np.float32)


def _float32(data: bytes) -> Float32:
    return np.frombuffer(data, _F4).astype(np.float32)


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"base64 was expected, not {type(value).__name__}")
    return base64.b64decode(value, validate=True)
