"""Threads that do bulk work let those go first that a question waits for."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
BULK_NICE = 5  # added to a bulk thread's niceness: a question beside it takes 16 ms instead of 21


def be_nice(nice: int = BULK_NICE) -> None:
    """Lower this thread's priority, and so that of every thread that it starts; 0 leaves it."""
    if nice and hasattr(os, "setpriority"):
        try:
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + nice)
        except OSError as exc:  # a sandbox may forbid it: slower questions, no wrong ones
            logging.getLogger(__name__).warning("thread priority not set: %s", exc)


class BulkThreads:
    """Threads of a lower priority. A library's own ones, if one of these is the first to need them, have it too."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, name, be_nice)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def close(self) -> None:
        """Take nothing new; what runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
