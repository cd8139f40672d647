"""What a generator is given room for, and what answers when it does not: the pipeline's dealings with generators."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from models.base import (
    Delta,
    GenerationOptions,
    Generator,
    GeneratorInfo,
    ModelError,
    ModelNotFoundError,
    ModelUnavailableError,
    Prompt,
    Usage,
)
from server.base import AnswerRequest, ContextTooLongError
from server.prompt import build_prompt
from server.settings import Settings

T = TypeVar("T")


@dataclass(slots=True)
class Generation:
    """How one generation goes: who writes, how it ended, what failed. Filled while it streams."""

    generator: Generator
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    degraded: list[str] = field(default_factory=list)

    def degrade(self, fallback: Generator, error: ModelError) -> None:
        """Let the fallback answer, and say why."""
        self.degraded.append(f"generator {self.generator.info.name!r}: {error}; extractive answer instead")
        self.generator = fallback


def options_of(request: AnswerRequest, settings: Settings, info: GeneratorInfo) -> GenerationOptions:
    """The request's options, the settings' where it says nothing. Raises ModelNotFoundError for `generator`."""
    if request.generator not in (None, info.name) and not info.has_adapters:
        raise ModelNotFoundError(f"generator {info.name!r} has no adapters: {request.generator!r} cannot be asked for")
    return GenerationOptions(
        max_tokens=request.max_tokens or settings.max_tokens,
        temperature=settings.temperature if request.temperature is None else request.temperature,
        top_p=request.top_p,
        stop=request.stop,
        seed=request.seed,
        timeout_s=settings.generation_timeout_s,
        adapter=request.generator,
    )


async def or_fallback(
    generation: Generation,
    fallback: Generator,
    options: GenerationOptions,
    work: Callable[[Generator], Awaitable[T]],
) -> T:
    """What `work` gives with the generator; with the fallback, if the generator fails at it.

    Raises ModelNotFoundError as `generate` does.
    """
    try:
        return await work(generation.generator)
    except ModelError as exc:
        if generation.generator is fallback or _names_no_adapter(exc, options):
            raise
        generation.degrade(fallback, exc)
    return await work(fallback)


async def room_for_passages(generator: Generator, request: AnswerRequest, options: GenerationOptions) -> int:
    """Tokens the context length leaves beside the prompt without passages, chat template counted, and the answer.

    Raises ContextTooLongError if none are left.
    """
    bare = build_prompt(request.search.question, (), request.messages[:-1])
    overhead = await generator.count_prompt_tokens(bare.messages)
    room = generator.info.context_length - overhead - options.max_tokens
    if room < 1:
        raise ContextTooLongError(
            f"the question and history take {overhead} tokens and max_tokens is {options.max_tokens}, but "
            f"{generator.info.name!r} takes {generator.info.context_length} in all: shorten them, or ask for less"
        )
    return room


async def generate(
    generation: Generation, fallback: Generator, prompt: Prompt, options: GenerationOptions, *, streamed: bool
) -> AsyncGenerator[Delta, None]:
    """The generator's deltas; the fallback's, and a line in `degraded`, if it fails before its first word, or before
    its last where nothing is read until then (not `streamed`).

    Raises ModelNotFoundError for an adapter that the request names and the generator's server does not have.
    """
    if generation.generator is not fallback:
        started = False
        try:
            written = _from_first_word(generation.generator.generate(prompt, options))
            async with aclosing(written if streamed else _at_once(written)) as deltas:
                async for delta in deltas:
                    started = True
                    yield _noted(delta, generation)
            return
        except ModelError as exc:
            if started or _names_no_adapter(exc, options):
                raise
            generation.degrade(fallback, exc)
    async with aclosing(fallback.generate(prompt, options)) as deltas:
        async for delta in deltas:
            yield _noted(delta, generation)


async def _from_first_word(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """The deltas, white space before the first word held back. Raises ModelUnavailableError if no word comes."""
    blank, started = "", False
    async with aclosing(deltas):
        async for delta in deltas:
            started = started or bool(delta.text.strip())
            if started:
                yield replace(delta, text=blank + delta.text)
                blank = ""
            else:
                blank += delta.text
    if not started:
        raise ModelUnavailableError("it answered without a word")


async def _at_once(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """The deltas, the first once the last is there."""
    async with aclosing(deltas):
        held = [delta async for delta in deltas]
    for delta in held:
        yield delta


def _names_no_adapter(error: ModelError, options: GenerationOptions) -> bool:
    """Whether it is the request's own fault: an adapter that the generator's server does not have."""
    return isinstance(error, ModelNotFoundError) and options.adapter is not None


def _noted(delta: Delta, generation: Generation) -> Delta:
    generation.finish_reason = delta.finish_reason or generation.finish_reason
    generation.usage = delta.usage or generation.usage
    return delta
