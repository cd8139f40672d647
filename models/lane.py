"""A compiled OpenVINO model with infer requests and threads of its own, so that no kind of work waits for another.

Blocking inference leaves the event loop here and nowhere else, and OpenVINO's errors become ours.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Literal, TypeVar

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from models.base import Float32, Int32, ModelError, ModelUnavailableError, Precision, UnsupportedModelError
from models.priority import Priority, be_low, computing

T = TypeVar("T")
S = TypeVar("S")
Infer = Callable[..., list[Float32]]  # inputs in the graph's order → outputs, views valid until the job returns


def choose_precision(wanted: Precision, core: ov.Core) -> Literal["bf16", "f32"]:
    """bf16 if wanted or, on "auto", where the CPU computes in it natively (AMX, AVX512_BF16); else f32, Arm included.

    "int8" says nothing of what is not quantised: as "auto". Raises UnsupportedModelError for bf16 on a CPU without it.
    """
    capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not capable:
        raise UnsupportedModelError(
            "precision='bf16' is not supported by this CPU; set 'f32', or 'auto' to let it choose."
        )
    # A CPU may be capable by emulation, which is slower than f32: the plugin's own default tells the two apart.
    native = core.get_property("CPU", "INFERENCE_PRECISION_HINT") == ov.Type.bf16
    return "bf16" if wanted == "bf16" or (wanted != "f32" and capable and native) else "f32"


@contextmanager
def map_errors(model: str) -> Iterator[None]:
    """OpenVINO raises RuntimeError and its own OVError; whichever it is, the model did not answer."""
    try:
        yield
    except ModelError:
        raise
    except Exception as exc:
        raise ModelUnavailableError(
            f"Model {model!r} failed in OpenVINO: {exc}. Retry; restart if it repeats."
        ) from exc


class _Slot:
    """An infer request of each of a lane's models, for one job at a time."""

    def __init__(self, models: Sequence[ov.CompiledModel]) -> None:
        self._any = models[0].create_infer_request()
        self._exact = {tuple(model.input(0).shape): model.create_infer_request() for model in models[1:]}

    def infer(self, *inputs: Int32) -> list[Float32]:
        request, numbered = self._exact.get(inputs[0].shape), dict(enumerate(inputs))
        if request is not None:  # in this thread: no other need wake up
            request.infer(numbered, share_inputs=True, share_outputs=True)
        else:  # in the runtime's threads, which have the lane's priority
            request = self._any
            request.start_async(numbered, share_inputs=True)
            request.wait()
        outputs: list[NDArray[np.float32]] = [tensor.data for tensor in request.output_tensors]
        return outputs


class Lane:
    """Runs jobs in threads, each with infer requests that no other thread has meanwhile.

    `streams`: how many batches the model computes at once.
    """

    def __init__(
        self,
        name: str,
        compile_models: Callable[[], Sequence[ov.CompiledModel]],
        *,
        spare: int,
        bulk: Priority | None = None,
    ) -> None:
        """The first model takes inputs of any shape, each further one computes those of its own shape instead.

        `spare`: how many jobs may prepare or unpack beside those that the model computes at once. `bulk`: its work
        is bulk work, and computed at this priority.
        """
        self._name, self._closed = name, False
        # compiled in a thread of the lane's priority, which the runtime's own threads inherit
        begin = be_low if bulk else None
        with ThreadPoolExecutor(1, f"compile-{name}", begin) as compiler, map_errors(name), computing(bulk):
            compiled = compiler.submit(compile_models).result()
            self.streams = int(compiled[0].get_property("NUM_STREAMS"))
            slots = [_Slot(compiled) for _ in range(self.streams + spare)]
        self._width = len(slots)
        self._executor = ThreadPoolExecutor(self._width, f"lane-{name}", begin)
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for slot in slots:
            self._slots.put(slot)

    async def run(self, job: Callable[[Infer], T]) -> T:
        """Run one job in a thread of this lane. Raises ModelUnavailableError once the lane is closed."""
        return await self._submit(job)

    async def run_batches(
        self, job: Callable[[Infer, list[S]], Sequence[T]], items: Sequence[S], batches: Sequence[Sequence[int]]
    ) -> list[T]:
        """One job a batch, `batches` being indices into `items` that cover them all; the results in the items' order.

        Few jobs of one call are under way at once, so that calls take turns and a cancelled call leaves no work.
        """
        pending: deque[tuple[Sequence[int], asyncio.Future[Sequence[T]]]] = deque()
        results: dict[int, T] = {}
        try:
            for batch in batches:
                pending.append((batch, self._submit(partial(_applied, job, [items[i] for i in batch]))))
                if len(pending) > self._width:
                    await _take(pending, results)
            while pending:
                await _take(pending, results)
        finally:
            for _, future in pending:
                future.cancel()
        return [results[i] for i in range(len(items))]

    async def close(self) -> None:
        """Refuse new jobs, and wait for those that run."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
        while not self._slots.empty():
            self._slots.get()

    def _submit(self, job: Callable[[Infer], T]) -> "asyncio.Future[T]":
        if self._closed:
            raise ModelUnavailableError(f"Model {self._name!r} was closed; load it again.")
        return asyncio.get_running_loop().run_in_executor(self._executor, self._run, job)

    def _run(self, job: Callable[[Infer], T]) -> T:
        slot = self._slots.get()
        try:
            with map_errors(self._name):
                return job(slot.infer)
        finally:
            self._slots.put(slot)


async def _take(pending: deque[tuple[Sequence[int], asyncio.Future[Sequence[T]]]], results: dict[int, T]) -> None:
    """Wait for the oldest batch, keeping it among the pending ones meanwhile, so that a cancellation reaches it."""
    batch, future = pending[0]
    results.update(zip(batch, await future, strict=True))
    pending.popleft()


def _applied(job: Callable[[Infer, S], T], item: S, infer: Infer) -> T:
    return job(infer, item)
