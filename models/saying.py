"""What every generator owes whoever asks it, for those that make their answer themselves, piece by piece.

Pieces enter; deltas leave: within the context and max_tokens, before the deadline, without a stop string.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from models.base import (
    Delta,
    GenerationOptions,
    GenerationTimeoutError,
    GeneratorInfo,
    InputTooLongError,
    Usage,
)
from models.streaming import StopScanner


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that is sent whole or not at all, and its tokens."""

    text: str
    tokens: int


def check_length(info: GeneratorInfo, prompt_tokens: int, max_tokens: int) -> None:
    """Raise InputTooLongError if prompt and answer may exceed the context."""
    if prompt_tokens + max_tokens > info.context_length:
        raise InputTooLongError(
            f"{prompt_tokens} tokens of prompt and max_tokens={max_tokens} exceed the {info.context_length} that "
            f"{info.name!r} takes: send less, or ask for a shorter answer"
        )


def timeout_error(info: GeneratorInfo, timeout_s: float) -> GenerationTimeoutError:
    return GenerationTimeoutError(
        f"generator {info.name!r} did not finish in {timeout_s:g} s: ask for a shorter answer, or raise "
        "generation_timeout_s"
    )


async def say(
    pieces: AsyncGenerator[Piece, None], options: GenerationOptions, *, prompt_tokens: int, info: GeneratorInfo
) -> AsyncGenerator[Delta, None]:
    """Send the pieces; the last delta has the reason ("length": a piece did not fit into max_tokens) and the usage."""
    check_length(info, prompt_tokens, options.max_tokens)
    deadline = asyncio.get_running_loop().time() + options.timeout_s
    scanner, tokens, at_length = StopScanner(options.stop), 0, False
    async with aclosing(pieces):
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
            except TimeoutError as exc:
                raise timeout_error(info, options.timeout_s) from exc
            if piece is None:
                break
            at_length = tokens + piece.tokens > options.max_tokens
            if at_length:
                break
            tokens += piece.tokens
            if text := scanner.feed(piece.text):
                yield Delta(text)
            if scanner.stopped:
                break
    yield Delta(scanner.finish(), "length" if at_length else "stop", Usage(prompt_tokens, tokens))
