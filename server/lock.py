"""The data folder has one owner: an operating system lock on a file in it, taken before anything else there is opened.

The lock alone decides; what the file says (who holds it, and where its server listens) helps whoever finds it held, and
is harmless when stale after a kill. A folder on a network filesystem is not protected: use a local disk.
"""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from server.base import DataFolderHeldError
from server.data_folder import LOCK

PROBE_TRIES, PROBE_WAIT_S = 20, 0.01  # `holder_of` takes the lock for some microseconds


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a data folder. `url` and `token` (of a local admin) are there once its server listens."""

    pid: int
    command: str
    url: str | None = None
    token: str | None = None


UNNAMED = Holder(0, "a command that is just starting")


class DataFolderLock:
    """Held from `acquire` to `release`, or to the end of the process, however it ends."""

    def __init__(self, data_dir: Path, command: str) -> None:
        self._data_dir = data_dir
        self._holder = Holder(os.getpid(), command)
        self._descriptor: int | None = None

    @property
    def token(self) -> str | None:
        """The bearer token of a local admin, once `update` gave one."""
        return self._holder.token

    def acquire(self) -> None:
        """Take the lock, making the folder (mode 0700) if need be. Raises DataFolderHeldError, naming the holder."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._write()

    def _lock(self, descriptor: int) -> None:
        for _ in range(PROBE_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if (holder := holder_of(self._data_dir)) is not None:
                    raise _held(self._data_dir, holder) from None
            time.sleep(PROBE_WAIT_S)  # someone only looked, or is just ending
        raise _held(self._data_dir, UNNAMED)

    def update(self, url: str, token: str) -> None:
        """Say where the server listens, and the token that lets a local command in."""
        self._holder = replace(self._holder, url=url, token=token)
        self._write()

    def release(self) -> None:
        """Let the folder go. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _write(self) -> None:
        if self._descriptor is None:
            raise AssertionError("the lock is not held")
        data = json.dumps(asdict(self._holder)).encode()
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))


def holder_of(data_dir: Path) -> Holder | None:
    """Who holds a data folder now; None if nobody does. Takes nothing and changes nothing.

    A holder that has not yet written who it is has pid 0.
    """
    try:
        descriptor = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder:
    try:
        return Holder(**json.loads(os.pread(descriptor, 65_536, 0)))
    except (ValueError, TypeError):
        return UNNAMED


def _held(data_dir: Path, holder: Holder) -> DataFolderHeldError:
    at = f", listening on {holder.url}" if holder.url else ""
    return DataFolderHeldError(
        f"the data folder {str(data_dir)!r} is held by process {holder.pid} ({holder.command!r}{at}): stop it, use "
        "its HTTP API, or name another folder with REFDESK_DATA_DIR"
    )
