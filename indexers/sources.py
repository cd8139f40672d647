"""A folder's files in a fixed order, each under its relative path; nothing outside the folder is ever opened."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from indexers.base import UnreadableError


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read: its relative posix path, and where it lies. `failure` tells why it must not be read."""

    uri: str
    path: Path
    failure: UnreadableError | None = None

    def load(self, max_bytes: int) -> bytes:
        """The file's bytes. Raises UnreadableError: the failure, "too large", "not found", "unsupported".

        Blocks on the disk alone: pipes and devices are refused, and a file that was swapped for a link is not followed.
        """
        if self.failure is not None:
            raise self.failure
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise UnreadableError(self.uri, "unsupported", "it is no regular file")
                data = file.read(max_bytes + 1)
        except OSError as exc:
            raise UnreadableError(self.uri, "not found", exc.strerror or str(exc)) from exc
        if len(data) > max_bytes:
            raise UnreadableError(self.uri, "too large", f"it has over {max_bytes} bytes, the limit; split it")
        return data


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that somebody sent: the name it was given, and its open contents."""

    uri: str
    file: BinaryIO
    media_type: str | None = None

    def load(self, max_bytes: int) -> bytes:
        """The file's bytes. Raises UnreadableError: "too large"."""
        self.file.seek(0)
        data = self.file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise UnreadableError(self.uri, "too large", f"it has over {max_bytes} bytes, the limit; split it")
        return data


class RemoteSource(Protocol):
    """An object of a store elsewhere, as its listing tells of it."""

    @property
    def uri(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def mark(self) -> str:
        """Changes whenever the bytes do."""
        ...

    async def fetch(self, max_bytes: int) -> bytes:
        """The object's bytes. Raises UnreadableError: "too large", "not found"; the store's own error if it fails."""
        ...


IsLeftOut = Callable[[Path], bool]


def sources(root: Path, is_left_out: IsLeftOut = lambda _: False) -> Iterator[Source]:
    """The files below a folder, or the one file `root` is, each folder's entries in the order of their names.

    Left out are hidden entries (".git"), the lock files of Office ("~$plan.docx"), and what `is_left_out` says of a
    path, with all below it. Links to folders are not followed; a link to a file is, if it stays inside. What leads out,
    cannot be listed, or has a name that is not UTF-8 comes with its failure. Raises UnreadableError: "not found" if
    there is no such folder or file, "unsupported" if it is left out.
    """
    try:
        base = root.resolve(strict=True)
    except (OSError, RuntimeError) as exc:
        raise UnreadableError(os.fspath(root), "not found", "there is no such folder or file") from exc
    if _is_within(base, is_left_out):
        raise UnreadableError(os.fspath(root), "unsupported", "it is a part of a data folder, no document")
    if not base.is_dir():
        yield _named(root.name or base.name, base)
        return
    stack = [(base, "")]
    while stack:
        path, prefix = stack.pop()
        if prefix and not prefix.endswith("/"):
            yield _file(base, path, prefix, is_left_out)
            continue
        try:
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError as exc:
            failure = UnreadableError(_utf8(prefix), "not found", f"the folder cannot be listed: {exc.strerror}")
            yield Source(_utf8(prefix), path, failure)
            continue
        for entry in listed:
            if not entry.name.startswith((".", "~$")) and not is_left_out(Path(entry.path)):
                folder = entry.is_dir(follow_symlinks=False)
                stack.append((Path(entry.path), prefix + entry.name + ("/" if folder else "")))


def _is_within(path: Path, is_left_out: IsLeftOut) -> bool:
    return any(is_left_out(part) for part in (path, *path.parents))


def _file(base: Path, path: Path, uri: str, is_left_out: IsLeftOut) -> Source:
    if not path.is_symlink():
        return _named(uri, path)
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return Source(_utf8(uri), path, UnreadableError(_utf8(uri), "not found", "it is a link to nothing"))
    if not target.is_relative_to(base):
        detail = "it is a link that leads outside the folder, and such links are not followed"
        return Source(_utf8(uri), path, UnreadableError(_utf8(uri), "unsupported", detail))
    if _is_within(target, is_left_out):
        detail = "it is a link into a data folder, which holds no documents"
        return Source(_utf8(uri), path, UnreadableError(_utf8(uri), "unsupported", detail))
    if target.is_dir():
        detail = "it is a link to a folder, which is read under its own name"
        return Source(_utf8(uri), path, UnreadableError(_utf8(uri), "unsupported", detail))
    return _named(uri, target)


def _named(uri: str, path: Path) -> Source:
    readable = _utf8(uri)
    if readable == uri:
        return Source(uri, path)
    return Source(readable, path, UnreadableError(readable, "unsupported", "its name is not UTF-8; rename it"))


def _utf8(name: str) -> str:
    """The name as text: bytes that are no UTF-8 become escapes such as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
