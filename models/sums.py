"""sha256 of model files, remembered: a file whose size and modification time are unchanged is not read again.

Without the memory each start would read every weight file (0.2 s for the two built-in models, 10 s for an 8 GB one).
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from models.base import ModelCorruptError


class Sums:
    """Sums of files. `memory` is the JSON file that remembers them between processes; None: within this one only."""

    def __init__(self, memory: Path | None) -> None:
        self._memory = memory
        self._known: dict[str, list[int | str]] = {}
        if memory and memory.is_file():
            try:
                self._known = dict(json.loads(memory.read_text(encoding="utf-8")))
            except (ValueError, TypeError):  # torn by a crash: it only saves time, so it starts anew
                self._known = {}

    def of(self, path: Path, *, rehash: bool = False) -> str:
        """The file's sha256 in hex, from memory unless it changed or `rehash`."""
        stat = path.stat()
        known = self._known.get(str(path))
        if known and not rehash and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[str(path)] = [stat.st_size, stat.st_mtime_ns, digest]
        self._save()
        return digest

    def check(self, path: Path, expected: str, *, rehash: bool = False) -> None:
        """Raise ModelCorruptError naming the file and both sums if it is missing or not what the manifest says."""
        if not path.is_file():
            raise ModelCorruptError(
                f"{str(path)!r} is missing, though the manifest lists it. Remove its folder and add the model again."
            )
        if (found := self.of(path, rehash=rehash)) != expected:
            raise ModelCorruptError(
                f"{str(path)!r} has sha256 {found!r}, and the manifest says {expected!r}: the file was changed or "
                "damaged. Remove its folder and add the model again, or reinstall the package it came in."
            )

    def _save(self) -> None:
        if self._memory and self._memory.parent.is_dir():
            temporary = self._memory.with_suffix(f".{os.getpid()}")
            with suppress(OSError):  # a folder that is mounted read-only: the next start reads the files again
                temporary.write_text(json.dumps(self._known), encoding="utf-8")
                os.replace(temporary, self._memory)
