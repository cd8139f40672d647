"""A generator without a model, for trying the server out and for tests: it quotes the first passage's first sentence.

Deterministic, and a whole Generator: it streams word by word, counts tokens (words), and keeps to limits and stops.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from models.base import Delta, GenerationOptions, GeneratorInfo, Message, ModelUnavailableError, Prompt
from models.refusal import REFUSAL
from models.saying import Piece, say
from models.sentences import sentence_spans

_TOKEN = re.compile(r"\s*\S+|\s+$")


class FakeGenerator:
    """Implements Generator; `delay_s` passes before each word, so that deadlines and leaving clients can be tried."""

    def __init__(self, *, context_length: int = 8192, delay_s: float = 0.0) -> None:
        self.info = GeneratorInfo("fake", "fake-1", context_length, is_language_model=False)
        self._delay_s = delay_s
        self._closed = False

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words of each text."""
        self._check_open()
        return [len(_TOKEN.findall(text)) for text in texts]

    async def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Words of all messages, and one each for the role."""
        return sum(await self.count_tokens([m.content for m in messages])) + len(messages)

    async def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        """The first sentence of the first passage with [1], a word at a time; REFUSAL without passages."""
        self._check_open()
        prompt_tokens = await self.count_prompt_tokens(prompt.messages)
        async for delta in say(self._words(prompt), options, prompt_tokens=prompt_tokens, info=self.info):
            yield delta

    async def close(self) -> None:
        self._closed = True

    async def _words(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        answer = f"{_first_sentence(prompt.passages[0])} [1]" if prompt.passages else REFUSAL
        for word in _TOKEN.findall(answer):
            await asyncio.sleep(self._delay_s)
            self._check_open()
            yield Piece(word, 1)

    def _check_open(self) -> None:
        if self._closed:
            raise ModelUnavailableError("generator 'fake' was closed")


def _first_sentence(passage: str) -> str:
    spans = sentence_spans(passage)
    return " ".join(passage[slice(*spans[0])].split()) if spans else ""
