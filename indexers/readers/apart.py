"""Work that may take its process with it, in a process of its own: a file's bytes go in, items of JSON come out.

Memory and CPU time are limited there. When it dies, what it died of is told, the rest of this process is as before, and
the next file gets a new one. It ends with its parent, and by no signal that is meant for that.
"""

import atexit
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import dup, dup2, environ, fdopen, pathsep
from pathlib import Path
from typing import IO, Any

import orjson

_LENGTH_BYTES = 8
_ROOT = str(Path(__file__).parents[2])  # where `indexers` is found
_HANDED_ON = frozenset({"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "LANG", "LC_ALL"})  # no key, no password
_ERROR, _END = "error", None  # an item {_ERROR: what went wrong}, and the one after the last


class ApartError(Exception):
    """The work was not done, for what it was given; the message says why, in words that follow "it"."""


class NoProcessError(Exception):
    """The work was not begun: no process can be started for it; the message says why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the process may take; `idle_s`: it ends when it had nothing to do for so long."""

    memory_bytes: int = 2 * 2**30
    item_cpu_s: float = 60.0
    cpu_s: float = 600.0  # for all items of a file
    idle_s: float = 60.0


class Apart:
    """The parent's end: one process, started when there is work, for one piece of work at a time."""

    def __init__(self, module: str, bounds: Bounds = Bounds()) -> None:
        """`module` is run as a program, and calls `serve`."""
        self._module, self._bounds = module, bounds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, data: bytes, settings: Mapping[str, int], take: Callable[[Any], None]) -> None:
        """Give `take` each item, as it comes. Raises ApartError if the work fails or its process dies of it, and
        NoProcessError."""
        with self._lock:
            while True:
                process = self._running()
                try:
                    return _exchange(process, data, settings, take)
                except ApartError:
                    raise
                except (EOFError, BrokenPipeError):
                    code = self._ended(process)
                    if code != 0:
                        raise ApartError(self._died_of(code)) from None
                    # else it had just ended for want of work
                except BaseException:  # what it would say next is of no work that comes
                    process.kill()
                    self._ended(process)
                    raise

    def close(self) -> None:
        """End the process, if there is one, and the work under way with it; it comes again with the next work."""
        process = self._process
        if process is not None:
            process.kill()
            with self._lock:
                if self._process is process:
                    self._ended(process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            bounds = self._bounds
            limits = (bounds.memory_bytes, bounds.item_cpu_s, bounds.cpu_s, bounds.idle_s)
            handed_on = {name: environ[name] for name in _HANDED_ON & environ.keys()}
            try:
                self._process = subprocess.Popen(
                    # -P: nothing is imported from the folder that refdesk was started in, which may be of documents
                    [sys.executable, "-P", "-m", self._module, *map(str, limits)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=handed_on | {"PYTHONPATH": pathsep.join([*filter(None, sys.path), _ROOT])},
                    process_group=0,  # Ctrl-C is the parent's
                )
            except OSError as exc:
                raise NoProcessError(f"{sys.executable!r} cannot be started: {exc}") from exc
            atexit.register(self.close)
        return self._process

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        """The exit status of a process that has closed its end."""
        self._process = None
        atexit.unregister(self.close)
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # of what was still to be written
                assert pipe is not None
                pipe.close()
        return process.wait()

    def _died_of(self, code: int) -> str:
        bounds = self._bounds
        if code == -signal.SIGPROF:
            return f"takes longer than {bounds.item_cpu_s:g} s for one part, or {bounds.cpu_s:g} s in all"
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return (
            f"breaks the library that reads it ({name}), or takes more than {bounds.memory_bytes >> 20} MiB of memory"
        )


def _exchange(
    process: subprocess.Popen[bytes], data: bytes, settings: Mapping[str, int], take: Callable[[Any], None]
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    _write(process.stdin, orjson.dumps(settings))
    _write(process.stdin, data)
    while (item := orjson.loads(_read(process.stdout))) is not _END:
        if isinstance(item, dict) and _ERROR in item:
            raise ApartError(item[_ERROR])
        take(item)


def serve(work: Callable[[bytes, Mapping[str, int]], Iterator[object]]) -> None:
    """The other end, a program's main function: do the work for each file that comes, until none does."""
    memory_bytes, (item_cpu_s, cpu_s, idle_s) = int(sys.argv[1]), map(float, sys.argv[2:])
    _bound_memory(memory_bytes)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to a whole group: the parent decides, whose end is read here
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    source, sink = sys.stdin.buffer, fdopen(dup(1), "wb")
    dup2(2, 1)  # what a library prints is no item
    while select.select([source], [], [], idle_s)[0]:
        try:
            settings, data = orjson.loads(_read(source)), _read(source)
        except EOFError:  # the parent is gone
            return
        end = time.process_time() + cpu_s
        _bound_time(item_cpu_s)
        try:
            for item in work(data, settings):
                _write(sink, orjson.dumps(item))
                if (left := end - time.process_time()) <= 0:
                    raise TimeoutError(f"longer than {cpu_s:g} s in all")
                _bound_time(min(item_cpu_s, left))
        except MemoryError:
            _write(sink, orjson.dumps({_ERROR: f"takes more than {memory_bytes >> 20} MiB of memory"}))
        except Exception as exc:  # whatever a parser throws at a broken file
            _write(sink, orjson.dumps({_ERROR: f"cannot be read: {type(exc).__name__}: {exc}"[:300]}))
        else:
            _write(sink, orjson.dumps(_END))
        _bound_time(0)


def _bound_memory(size: int) -> None:
    if sys.platform == "linux":  # elsewhere the limit is not kept
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        size = size if most == resource.RLIM_INFINITY else min(size, most)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bound_time(cpu_s: float) -> None:
    """From now, by a signal that ends the process, in whatever code it is; 0: no more."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(_LENGTH_BYTES, "big"))
    stream.write(message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    """One message. Raises EOFError if the other end closes before it is whole."""
    head = stream.read(_LENGTH_BYTES)
    message = stream.read(int.from_bytes(head, "big"))
    if len(head) < _LENGTH_BYTES or len(message) < int.from_bytes(head, "big"):
        raise EOFError
    return message
