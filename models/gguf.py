"""Reads a language model's headers: a GGUF file's metadata, whether the file is whole, how many tokens it takes.

OpenVINO GenAI ends the process (segmentation fault) on a truncated file, so a file is checked here before it is loaded.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from models.base import ModelCorruptError, ModelNotFoundError, UnsupportedModelError

Value = int | float | bool | str

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# ggml type → (weights a block, bytes a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Scalar metadata by key ("llama.context_length"); arrays (vocabulary, merges) are left out."""

    metadata: dict[str, Value]
    tensors: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int | None:
        value = self.metadata.get(f"{self.architecture}.context_length")
        return value if isinstance(value, int) else None


def read_gguf(path: Path) -> GgufHeader:
    """Read and check a GGUF file's header.

    Raises ModelNotFoundError; ModelCorruptError if it is no GGUF file (version 2 or 3) or shorter than its tensors.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise ModelNotFoundError(f"no GGUF file at {str(path)!r}: give the path of a .gguf file") from exc
    except (struct.error, ValueError, KeyError, ZeroDivisionError, OverflowError) as exc:
        raise ModelCorruptError(
            f"{str(path)!r} is no whole GGUF file ({exc}): it was cut short or is of another kind; copy it again"
        ) from exc


def context_length_of(path: Path, at_most: int | None = None) -> int:
    """Tokens that a language model takes, prompt and answer together, by its GGUF header or its folder's config.json.

    `at_most` lowers it, or stands in where the model does not say.

    Raises ModelNotFoundError, ModelCorruptError, and UnsupportedModelError if neither says it.
    """
    length: object = None
    if path.is_dir():
        try:
            length = json.loads((path / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
        except FileNotFoundError as exc:
            raise ModelNotFoundError(f"no config.json in {str(path)!r}: an OpenVINO folder has one") from exc
        except (ValueError, AttributeError) as exc:
            raise ModelCorruptError(f"config.json in {str(path)!r} is no JSON object ({exc}): copy it again") from exc
    else:
        length = read_gguf(path).context_length
    if not isinstance(length, int) or length < 1:
        length = at_most
    if length is None:
        raise UnsupportedModelError(f"{str(path)!r} does not say how many tokens it takes: give context_length")
    return min(length, at_most or length)


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> GgufHeader:
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not begin with 'GGUF'")
        self._at = 4
        version = self._number("I")
        if version not in (2, 3):
            raise ValueError(f"version {version}, not 2 or 3")
        n_tensors, n_keys = self._number("Q"), self._number("Q")
        metadata: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._string()
            value = self._value(self._number("I"))
            if value is not None:
                metadata[key] = value
        self._check_tensors(n_tensors, metadata)
        return GgufHeader(metadata, n_tensors)

    def _check_tensors(self, count: int, metadata: dict[str, Value]) -> None:
        ends = [0]
        for _ in range(count):
            self._string()
            weights = 1
            for _ in range(self._number("I")):
                weights *= self._number("Q")
            kind, offset = self._number("I"), self._number("Q")
            per_block, block_bytes = _BLOCKS.get(kind, (1, 0))  # of a type unknown here only the start is checked
            ends.append(offset + weights // per_block * block_bytes)
        alignment = int(metadata.get("general.alignment", 32))
        start = -(-self._at // alignment) * alignment
        if start + max(ends) > len(self._data):
            raise ValueError(f"{len(self._data)} bytes, of {start + max(ends)} that its tensors take")

    def _number(self, code: str) -> int:
        value = struct.unpack_from("<" + code, self._data, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return int(value)

    def _string(self) -> str:
        size = self._number("Q")
        if self._at + size > len(self._data):
            raise ValueError("a string runs past its end")
        text = self._data[self._at : self._at + size].decode(errors="replace")
        self._at += size
        return text

    def _value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array()
            return None
        value: Value = struct.unpack_from("<" + _SCALARS[kind], self._data, self._at)[0]
        self._at += struct.calcsize("<" + _SCALARS[kind])
        return value

    def _skip_array(self) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            self._at += count * struct.calcsize("<" + _SCALARS[kind])
            return
        for _ in range(count):
            if kind == _STRING:
                self._at += struct.unpack_from("<Q", self._data, self._at)[0] + 8
            else:
                self._value(kind)
