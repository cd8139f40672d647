"""Threads that do bulk work let those go first that a question waits for.

A lower niceness alone is not enough: Linux lets a thread that computes end its slice of some milliseconds before one
that wakes, however nice it is, and a question wakes threads a hundred times. One of the idle class gives way at once.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

T = TypeVar("T")
Priority = Literal["idle", "low"]
BULK_NICE = 5  # added to a bulk thread's niceness: two of them leave a question three quarters of the cores


def lower(priority: Priority) -> None:
    """Lower this thread's priority, and so that of every thread that it starts.

    "low": when others want all cores, a quarter of one is left to it. "idle": what others leave, which may be nothing;
    so not for a thread that holds the interpreter, for which the others may wait.
    """
    try:
        if hasattr(os, "setpriority"):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + BULK_NICE)
        if priority == "idle" and sys.platform == "linux":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as exc:  # a sandbox may forbid it: slower questions, no wrong ones
        logging.getLogger(__name__).warning("thread priority not set: %s", exc)


class BulkThreads:
    """Threads of a low priority for work that holds the interpreter."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, name, lower, ("low",))

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def close(self) -> None:
        """Take nothing new; what runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
