"""Real servers for the live tests: a process in a temporary folder on free ports, started, healthy, stopped.

A test skips only where the tool that starts its server is missing, and says which; a server that does not come up fails
it, with the end of its log.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache"  # what starters download, kept between runs
START_S = 180.0  # a server that takes longer has failed: generous, since tests share their machine with others
STOP_S = 30.0
TAIL_CHARS = 3000


def need(tool: str, *places: str) -> str:
    """The path of a program, looked for on PATH and then in `places`; skips the test where there is none."""
    found = shutil.which(tool) or next((place for place in places if os.access(place, os.X_OK)), None)
    return found or skip_without(tool)


def skip_without(tool: str) -> str:
    pytest.skip(f"needs {tool}, which is not installed here", allow_module_level=True)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Server:
    """A server's process. `is_healthy` is asked until it says yes; what it raises of OSError counts as no.

    `with Server(…) as server:` starts it, waits, and stops it; in between it may be stopped, killed and started again
    over the same folder, or paused, as a test of failures wants.
    """

    name: str
    command: Sequence[str]
    folder: Path  # where it runs, and where its log goes
    is_healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    start_s: float = START_S
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it is healthy; raises RuntimeError with the end of its log if it is not."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the process, and no more."""
        assert self._process is None, f"{self.name} runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its children end with it, and Ctrl-C in the tests does not reach it first
            )

    def wait(self) -> None:
        deadline = time.monotonic() + self.start_s
        while not self._answers():
            if not self.is_running:
                raise RuntimeError(f"{self.name} ended at once; its log:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not up after {self.start_s:g} s; its log:\n{self.log_tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return text[-TAIL_CHARS:]

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def _answers(self) -> bool:
        try:
            return self.is_healthy()
        except OSError:
            return False

    def _signal(self, number: int) -> None:
        if self.is_running:
            assert self._process is not None
            os.killpg(self._process.pid, number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, number)
            if number != signal.SIGKILL:
                os.killpg(process.pid, signal.SIGCONT)  # one that was paused would not hear of it
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
