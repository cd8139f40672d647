"""Originals in a folder: a file each, written beside its place, synced and renamed, so that none is ever half there."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO

from server.base import StoreUnavailableError
from server.originals import StoredOriginal, missing

PIECE_BYTES = 256 * 1024
UNFINISHED = "unfinished"


class FolderOriginals:
    """Implements server.originals.OriginalStore. The folder has one owner, that of the data folder."""

    def __init__(self, root: Path) -> None:
        """What a crash left half written is removed."""
        self._root = root
        with _mapped(root):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            rmtree(root / UNFINISHED, ignore_errors=True)
            (root / UNFINISHED).mkdir(mode=0o700)

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._write, name, data)

    def _write(self, name: str, data: bytes) -> None:
        place, unfinished = self._root / name, self._root / UNFINISHED / secrets.token_hex(8)
        with _mapped(place):
            try:
                descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                _make_folder(place.parent)
                unfinished.rename(place)
                _sync(place.parent)
            except BaseException:
                with suppress(OSError):
                    unfinished.unlink()
                raise

    async def read(self, name: str) -> AsyncGenerator[bytes, None]:
        place = self._root / name
        with _mapped(place):
            try:
                file = await asyncio.to_thread(place.open, "rb")
            except FileNotFoundError as exc:
                raise missing(name) from exc
        with file:
            while piece := await asyncio.to_thread(_read, place, file):
                yield piece

    async def delete(self, names: Sequence[str]) -> None:
        await asyncio.to_thread(self._remove, names)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            with _mapped(self._root / name), suppress(FileNotFoundError):
                (self._root / name).unlink()

    async def list(self, folder: str) -> AsyncGenerator[Sequence[StoredOriginal], None]:
        if found := await asyncio.to_thread(_stored, self._root / folder, folder):
            yield found

    async def close(self) -> None:
        pass


def _read(place: Path, file: BinaryIO) -> bytes:
    with _mapped(place):
        return file.read(PIECE_BYTES)


def _make_folder(folder: Path) -> None:
    """A folder, durable: after a power cut it is still there, as is the file that is put into it."""
    made = []
    while not folder.is_dir():
        made.append(folder)
        folder = folder.parent
    for new in reversed(made):
        new.mkdir(mode=0o700, exist_ok=True)
        _sync(new.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entries(folder: Path) -> Sequence[str]:
    with _mapped(folder), suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def _stored(folder: Path, prefix: str) -> Sequence[StoredOriginal]:
    found = []
    for name in _entries(folder):
        with _mapped(folder), suppress(FileNotFoundError):
            status = (folder / name).stat()
            found.append(StoredOriginal(f"{prefix}/{name}", status.st_size, status.st_mtime))
    return found


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """What the disk refuses, as the seam's error."""
    try:
        yield
    except OSError as exc:
        raise StoreUnavailableError(f"originals in {str(path.parent)!r}: {exc.strerror or exc}") from exc
