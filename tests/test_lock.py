"""The data folder has one owner, whoever asks and however the owner ends."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.base import DataFolderHeldError
from server.lock import DataFolderLock, holder_of

HOLD = """
import sys, time
from pathlib import Path
from server.lock import DataFolderLock
lock = DataFolderLock(Path(sys.argv[1]), "refdesk serve")
lock.acquire()
lock.update("http://127.0.0.1:9", "local-token")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    yield process
    process.kill()
    process.wait()


def test_a_second_owner_is_refused_by_name(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    with pytest.raises(DataFolderHeldError, match=rf"process {owner.pid} \('refdesk serve', listening on http"):
        DataFolderLock(tmp_path, "refdesk ingest").acquire()
    holder = holder_of(tmp_path)
    assert holder is not None
    assert (holder.pid, holder.url, holder.token) == (owner.pid, "http://127.0.0.1:9", "local-token")


def test_a_killed_owner_leaves_the_folder_free(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert json.loads((tmp_path / "refdesk.lock").read_text())["pid"] == owner.pid
    assert holder_of(tmp_path) is None
    with DataFolderLock(tmp_path, "refdesk ingest"):
        holder = holder_of(tmp_path)
        assert holder is not None
        assert (holder.pid, holder.command, holder.url) == (os.getpid(), "refdesk ingest", None)


def test_release_and_take_again(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    assert holder_of(folder) is None
    lock = DataFolderLock(folder, "refdesk serve")
    lock.acquire()
    lock.update("http://127.0.0.1:1234", "x" * 64)
    with pytest.raises(DataFolderHeldError, match="held by process"):
        DataFolderLock(folder, "refdesk serve").acquire()
    lock.release()
    lock.release()
    assert holder_of(folder) is None
    with DataFolderLock(folder, "refdesk repair"):
        pass


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with DataFolderLock(folder, "refdesk serve"):
        assert stat.S_IMODE((folder / "refdesk.lock").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    with DataFolderLock(tmp_path, "refdesk serve"):
        os.truncate(tmp_path / "refdesk.lock", 0)
        with pytest.raises(DataFolderHeldError, match="just starting"):
            DataFolderLock(tmp_path, "refdesk ingest").acquire()
