"""Bulk work is done at a lower priority, by the threads of the tokenizer's library too."""

import _thread
import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.priority import BULK_NICE, BulkThreads, computing
from server.build import SERVE, build
from server.settings import Settings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="priorities a thread are Linux's")

# in a process of its own: the library's threads are started once a process, by whoever needs them first
LOADED = """
import os
from pathlib import Path
from models.openvino import OpenVinoEmbedder
from models.store import ModelStore

def idle():
    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    return {task for task in tasks if os.sched_getscheduler(task) == os.SCHED_IDLE}

folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
embedder = OpenVinoEmbedder.load(folder, bulk="idle")
threads = len(list(Path("/proc/self/task").iterdir()))
embedder.tokenizer.encode_ids(["a passage"] * 1000)
assert len(list(Path("/proc/self/task").iterdir())) <= threads, "a batch started more"
print(len(idle()), {os.getpriority(os.PRIO_PROCESS, task) - os.getpriority(os.PRIO_PROCESS, 0) for task in idle()})
"""


async def test_bulk_threads_are_nicer_than_the_one_that_asks() -> None:
    threads = BulkThreads(2, "bulk")

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await threads.run(priority) - priority() == BULK_NICE
    assert await threads.run(os.sched_getscheduler, 0) == os.sched_getscheduler(0)  # these hold the interpreter
    threads.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        await threads.run(priority)


def test_no_thread_that_holds_the_interpreter_idles() -> None:
    with ThreadPoolExecutor(1) as executor:
        with computing("idle"):
            executor.submit(int).result()
        assert executor.submit(os.sched_getscheduler, 0).result() == os.sched_getscheduler(0) != os.SCHED_IDLE


def test_a_kernel_that_knows_no_idle_class_is_borne_with(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with computing("idle"):  # a thread that Python does not know, as a library's
        _thread.start_new_thread(time.sleep, (1.0,))
        time.sleep(0.05)
    assert "thread priority not set: [Errno 22] Invalid argument" in caplog.text


def test_the_threads_that_compute_passages_idle() -> None:
    found = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    count, nice = found.stdout.split(maxsplit=1)
    assert int(count) > (os.cpu_count() or 1)  # the tokenizer's, one a core, and the runtime's
    assert nice.strip() == str({BULK_NICE})


@pytest.mark.parametrize(("command", "priority"), [(SERVE, "idle"), ("refdesk ingest", "low")])
async def test_passages_idle_only_where_questions_are_asked_beside_them(
    command: str, priority: str, tmp_path: Path
) -> None:
    desk = await build(Settings(data_dir=tmp_path, embedder="fake", reranker="none"), command=command)
    assert desk.settings.ingestion_priority == priority
    await desk.close()
