"""Threads that do bulk work let those go first that a question waits for.

A lower niceness alone is not enough: Linux lets a thread that computes end its slice of some milliseconds before one
that wakes, however nice it is, and a question wakes threads a hundred times. One of the idle class gives way at once.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")
Priority = Literal["idle", "low"]  # what others leave, which may be nothing; or a share, however busy others are
BULK_NICE = 5  # added to a bulk thread's niceness: two of them leave a question three quarters of the cores
log = logging.getLogger(__name__)


def be_low() -> None:
    """Give this thread the low priority, and so every thread that it starts."""
    if sys.platform == "linux":  # elsewhere a priority is a process's
        thread = threading.get_native_id()
        with _if_allowed():
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + BULK_NICE)


@contextmanager
def computing(priority: Priority | None) -> Iterator[None]:
    """Threads that a library starts meanwhile compute and never hold the interpreter: "idle" makes them idle.

    Python's own are left as they are: all others would wait for one that holds the interpreter and gets no time.
    """
    before = _threads()
    yield
    if priority == "idle" and sys.platform == "linux":
        python = {thread.native_id for thread in threading.enumerate()}
        for thread in _threads() - before - python:
            with _if_allowed(), suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


class BulkThreads:
    """Threads of low priority for work that holds the interpreter."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, name, be_low)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def close(self) -> None:
        """Take nothing new; what runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _threads() -> set[int]:
    tasks = Path("/proc/self/task")
    return {int(task.name) for task in tasks.iterdir()} if tasks.exists() else set()


@contextmanager
def _if_allowed() -> Iterator[None]:
    try:
        yield
    except OSError as exc:  # a sandbox may forbid it, or not know it: slower questions, no wrong ones
        log.warning("thread priority not set: %s", exc)
