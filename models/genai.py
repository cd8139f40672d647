"""A language model on the CPU: OpenVINO GenAI over a GGUF file or an OpenVINO folder, streaming.

The engine works in one thread of its own and lets others run. Prompts are read in pieces, so that a client that left
or a deadline ends the work within one piece, not after the whole prompt.
"""

import asyncio
import re
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import anyio
import numpy as np
import openvino
import openvino_genai

from models.base import (
    Delta,
    GenerationOptions,
    GeneratorInfo,
    Message,
    ModelUnavailableError,
    Prompt,
    UnsupportedModelError,
    Usage,
)
from models.control import control_tokens, defuse
from models.gguf import context_length_of
from models.lane import choose_precision
from models.saying import check_length, timeout_error
from models.streaming import IncrementalDecoder, StopScanner

GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")  # what OpenVINO GenAI 2026.4 builds from a GGUF file: tried
FinishReason = Literal["stop", "length"]

# Tokens of a prompt read at a time: the engine cannot be stopped before the first token of an answer, so a long prompt
# is read by generating one token from each of its beginnings, whose keys and values it keeps. That costs no measurable
# time (SmolLM2, two AVX2 cores, 870 tokens: 5.5 s in pieces, 6.0 s at once, on a busy machine).
_PIECE_TOKENS = 256


class GenAiGenerator:
    """Generates one answer at a time, others wait their turn in order. May be used from any event loop."""

    def __init__(self, pipeline: "openvino_genai.LLMPipeline", info: GeneratorInfo) -> None:
        self.info = info
        self._pipeline = pipeline
        self._tokenizer = pipeline.get_tokenizer()
        self._defaults = pipeline.get_generation_config()
        self._control = _control_tokens(self._tokenizer)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"generate-{info.name}")
        self._closing = threading.Event()

    @classmethod
    def load(
        cls, path: Path, *, name: str, fingerprint: str, context_length: int | None = None, threads: int = 0
    ) -> "GenAiGenerator":
        """Load a .gguf file or an OpenVINO folder (seconds). `threads` 0: as many as there are cores.

        The context length is the model's own unless given. Raises ModelNotFoundError, ModelCorruptError,
        UnsupportedModelError.
        """
        length = context_length_of(path, at_most=context_length)
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = length
        scheduler.enable_prefix_caching = True
        precision = choose_precision("auto", openvino.Core())
        # Keys and values as exact as the computation. The engine's default of 8 bits moves logits by 0.02 with how a
        # prompt was cut into pieces, which can turn a greedy answer; f32 by 0.00001, for four times the memory.
        properties: dict[str, object] = {
            "scheduler_config": scheduler,
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
        }
        if threads:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            pipeline = openvino_genai.LLMPipeline(str(path), "CPU", **properties)
        except RuntimeError as exc:
            raise UnsupportedModelError(
                f"{str(path)!r} cannot be loaded: {_reason(exc)}. Supported: GGUF files of the architectures "
                f"{', '.join(GGUF_ARCHITECTURES)} and folders made by `optimum-cli export openvino`."
            ) from exc
        if not pipeline.get_tokenizer().chat_template:
            raise UnsupportedModelError(f"{name!r} has no chat template: use an instruction-tuned model.")
        return cls(pipeline, GeneratorInfo(name, fingerprint, length, is_language_model=True))

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones not added. Raises ModelUnavailableError after close()."""
        self._check_open()
        return await asyncio.to_thread(lambda: [len(self._encode(self._defused(text))) for text in texts])

    async def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the messages in the model's chat template, the opening of the answer included."""
        self._check_open()
        return len(await asyncio.to_thread(self._encode_messages, messages))

    async def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        """Stream an answer; `timeout_s` counts from here, waiting for earlier generations included.

        temperature 0 is greedy, else `seed` repeats an answer: both but for the last bits, which change with how much
        of a prompt is cached, and which turn one answer in four when it is asked again (docs/answers.md).
        """
        self._check_open()
        deadline = asyncio.get_running_loop().time() + options.timeout_s
        input_ids = await asyncio.to_thread(self._encode_messages, prompt.messages)
        check_length(self.info, len(input_ids), options.max_tokens)
        job = _Job(input_ids, options)
        future = self._submit(job)
        try:
            async with asyncio.timeout_at(deadline):
                delta = await job.pieces.get()
            while delta is not None:
                yield delta
                async with asyncio.timeout_at(deadline):
                    delta = await job.pieces.get()
        except TimeoutError as exc:
            raise timeout_error(self.info, options.timeout_s) from exc
        finally:
            job.cancelled.set()
            future.cancel()  # if it has not begun
            with anyio.CancelScope(shield=True):
                await job.ended.wait()
        self._check_ended(future)

    async def close(self) -> None:
        """Stop what is being generated and free the model. Everything after raises ModelUnavailableError."""
        self._closing.set()
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)
        self._pipeline = None

    # --- the caller's side -----------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ModelUnavailableError(f"generator {self.info.name!r} was closed")

    def _submit(self, job: "_Job") -> "Future[bool]":
        try:
            future = self._worker.submit(self._run, job)
        except RuntimeError as exc:  # closed since the check
            raise ModelUnavailableError(f"generator {self.info.name!r} was closed") from exc
        future.add_done_callback(lambda _: job.end())
        return future

    def _check_ended(self, future: "Future[bool]") -> None:
        """Raise what ended the generation, if it did not end by itself."""
        if future.cancelled() or not future.result():
            raise ModelUnavailableError(f"generator {self.info.name!r} was closed while it answered")

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [int(token) for token in encoded.input_ids.data[0]]

    def _encode_messages(self, messages: Sequence[Message]) -> list[int]:
        turns = [{"role": m.role, "content": self._defused(m.content)} for m in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True)
        except RuntimeError as exc:
            roles = [m.role for m in messages]
            raise UnsupportedModelError(
                f"the chat template of {self.info.name!r} does not take the roles {roles!r}: {_reason(exc)}"
            ) from exc
        return self._encode(text)

    def _defused(self, text: str) -> str:
        """The text with its control tokens broken by a space, so that they are words like any others."""
        return defuse(text, self._control)

    # --- the generating thread -------------------------------------------------------------------------------------

    def _run(self, job: "_Job") -> bool:
        """Generate one answer, posting each piece as soon as nothing can change it; False if it was broken off."""
        ids = np.array([job.input_ids], dtype=np.int64)
        try:
            for end in range(_PIECE_TOKENS, ids.shape[1], _PIECE_TOKENS):
                if self._is_over(job):
                    return False
                self._pipeline.generate(openvino.Tensor(ids[:, :end].copy()), self._config(GenerationOptions(1, 0)))
            streamer = _Streamer(job, self._tokenizer.decode, lambda: self._is_over(job))
            result = self._pipeline.generate(openvino.Tensor(ids), self._config(job.options), streamer)
        except RuntimeError as exc:
            raise ModelUnavailableError(f"generator {self.info.name!r} failed: {_reason(exc)}") from exc
        at_length = result.finish_reasons[0] == openvino_genai.GenerationFinishReason.LENGTH
        return streamer.finish(at_length)

    def _is_over(self, job: "_Job") -> bool:
        return job.cancelled.is_set() or self._closing.is_set()

    def _config(self, options: GenerationOptions) -> "openvino_genai.GenerationConfig":
        config = openvino_genai.GenerationConfig()
        config.eos_token_id = self._defaults.eos_token_id
        config.stop_token_ids = self._defaults.stop_token_ids
        config.max_new_tokens = options.max_tokens
        config.do_sample = options.temperature > 0
        if config.do_sample:
            config.temperature = options.temperature
            config.top_p = max(options.top_p, 1e-3)  # the engine refuses 0
            config.rng_seed = secrets.randbits(32) if options.seed is None else options.seed % 2**63
        return config


class _Job:
    """One generation: what is asked, and where its pieces go. Made on the event loop that reads them."""

    def __init__(self, input_ids: list[int], options: GenerationOptions) -> None:
        self.input_ids, self.options = input_ids, options
        self.pieces: asyncio.Queue[Delta | None] = asyncio.Queue()  # bounded by max_tokens; None ends it
        self.cancelled = threading.Event()
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def post(self, delta: Delta) -> None:
        self._loop.call_soon_threadsafe(self.pieces.put_nowait, delta)

    def end(self) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.pieces.put_nowait(None)
        self.ended.set()


class _Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
    """Takes tokens from the engine, in its thread, and posts the text that they settle."""

    def __init__(self, job: _Job, decode: Callable[[Sequence[int]], str], is_over: Callable[[], bool]) -> None:
        super().__init__()
        self._job, self._is_over = job, is_over
        self._decoder, self._scanner = IncrementalDecoder(decode), StopScanner(job.options.stop)
        self._count = 0

    def write(self, token: int | Sequence[int]) -> "openvino_genai.StreamingStatus":
        tokens = [token] if isinstance(token, int) else list(token)
        self._count += len(tokens)
        if text := self._scanner.feed(self._decoder.feed(tokens)):
            self._job.post(Delta(text))
        if self._is_over():
            return openvino_genai.StreamingStatus.CANCEL
        return openvino_genai.StreamingStatus.STOP if self._scanner.stopped else openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """The engine's word that no token follows; finish() says the same, with the reason."""

    def finish(self, at_length: bool) -> bool:
        """Post the last piece with the usage; False if the answer was broken off."""
        if self._is_over() and not self._scanner.stopped:
            return False
        usage = Usage(len(self._job.input_ids), self._count)
        reason: FinishReason = "length" if at_length and not self._scanner.stopped else "stop"
        self._job.post(Delta(self._scanner.finish(), reason, usage))
        return True


def _control_tokens(tokenizer: "openvino_genai.Tokenizer") -> re.Pattern[str]:
    """What finds the control tokens of a vocabulary in a text."""
    return control_tokens(word.decode(errors="replace") for word in tokenizer.get_vocab())


def _reason(exc: RuntimeError) -> str:
    """The last line of an engine's message; those before say where in its source it was raised."""
    return next((line.strip() for line in reversed(str(exc).splitlines()) if line.strip()), type(exc).__name__)
