"""Bulk work is done at a lower priority, by the threads of the tokenizer's library too."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from models.priority import BULK_NICE, BulkThreads
from server.build import SERVE, build
from server.settings import Settings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="priorities a thread are Linux's")

# in a process of its own: the library's threads are started once a process, by whoever needs them first
STARTED = """
import os
from pathlib import Path
from models.store import ModelStore
from models.tokenizer import CheckpointTokenizer, start_threads

def threads():
    return {task.name: os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path("/proc/self/task").iterdir()}

tokenizer = CheckpointTokenizer(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path / "tokenizer.json")
tokenizer.encode_ids(["a question"])
before = threads()
start_threads(tokenizer, "idle")
first = threads()
tokenizer.encode_ids(["a passage"] * 1000)
after = threads()
assert after.keys() <= first.keys(), "a batch started more"
started = after.keys() - before.keys()
assert {os.sched_getscheduler(int(name)) for name in started} == {os.SCHED_IDLE}
print(*(after[name] - os.getpriority(os.PRIO_PROCESS, 0) for name in started))
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


def test_the_threads_of_the_tokenizers_library_are_nicer() -> None:
    found = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert set(found.stdout.split()) == {str(BULK_NICE)}


@pytest.mark.parametrize(("command", "priority"), [(SERVE, "idle"), ("refdesk ingest", "low")])
async def test_passages_idle_only_where_questions_are_asked_beside_them(
    command: str, priority: str, tmp_path: Path
) -> None:
    desk = await build(Settings(data_dir=tmp_path, embedder="fake", reranker="none"), command=command)
    assert desk.settings.ingestion_priority == priority
    await desk.close()
