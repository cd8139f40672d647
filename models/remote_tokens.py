"""Tokens as a remote generator counts them: by its tokenizer.json if we have it, else by its server's /tokenize.

A passage is counted once and remembered. /tokenize is vLLM's (llama.cpp's and TEI's differ). A server without it,
OpenAI's, needs a vocabulary; its chat format adds 3 tokens a message and 3 for the answer's opening (OpenAI Cookbook,
"How to count tokens").
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from models.base import Int32, Message, ModelNotFoundError, UnsupportedModelError
from models.control import LOOKS_LIKE_CONTROL, control_tokens, defuse
from models.remote import MalformedReplyError, Remote, Request, as_object

CACHED = 16_384  # texts whose count is remembered: about a megabyte
_AT_ONCE = 8
_TIMEOUT_S = 5.0
_OPENAI_MESSAGE, _OPENAI_OPENING = 3, 3
_PROBE = "x"


class Vocabulary(Protocol):
    """What counts tokens here, without asking the server."""

    def encode_ids(self, texts: Sequence[str]) -> list[Int32]: ...

    def words(self) -> list[str]:
        """Every token as text, among them the control tokens."""
        ...


class RemoteTokens:
    """Counts for one generator; `model` is what its server calls it."""

    def __init__(self, remote: Remote, model: str, vocabulary: Vocabulary | None) -> None:
        self._remote, self._model, self._vocabulary = remote, model, vocabulary
        self._control = control_tokens(vocabulary.words()) if vocabulary else None
        self._counted: OrderedDict[bytes, int] = OrderedDict()
        self._frames: dict[tuple[str, ...], int] = {}  # roles of a prompt → what the chat template adds to its contents
        self._has_endpoint = True
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones not added. Raises a ModelError."""
        return await self._count(await self.defused(texts))

    async def count_prompt(self, messages: Sequence[Message]) -> int:
        """Tokens of the messages in the model's chat template, the opening of the answer included."""
        contents = await self.defused([message.content for message in messages])
        turns = [Message(m.role, content) for m, content in zip(messages, contents, strict=True)]
        if self._vocabulary is None:
            return await self._ask_prompt(turns)
        roles = tuple(message.role for message in turns)
        if roles not in self._frames:
            self._frames[roles] = await self._frame(turns)
        return self._frames[roles] + sum(await self._count(contents))

    async def defused(self, texts: Sequence[str]) -> list[str]:
        """The texts as they may be sent: whatever the server's tokenizer reads as a control token is broken by a space.

        Without a vocabulary, what looks like one is a control token if it is a single token to the server.
        """
        if self._control is not None:
            control = self._control
            return [defuse(text, control) for text in texts]
        suspects = sorted({found for text in texts for found in LOOKS_LIKE_CONTROL.findall(text)})
        if not suspects or not self._has_endpoint:
            return list(texts)
        counts = await self._count(suspects)
        control = control_tokens(suspect for suspect, count in zip(suspects, counts, strict=True) if count == 1)
        return [defuse(text, control) for text in texts]

    async def _frame(self, turns: Sequence[Message]) -> int:
        """What the template adds, read off a prompt of the same roles; it depends on nothing else."""
        assert self._vocabulary is not None
        if self._has_endpoint:
            try:
                probes = [Message(turn.role, _PROBE) for turn in turns]
                counted = await self._ask_prompt(probes)
                return counted - len(turns) * len(self._vocabulary.encode_ids([_PROBE])[0])
            except ModelNotFoundError:
                self._has_endpoint = False
        roles = self._vocabulary.encode_ids([turn.role for turn in turns])
        return _OPENAI_OPENING + sum(_OPENAI_MESSAGE + len(role) for role in roles)

    async def _ask_prompt(self, messages: Sequence[Message]) -> int:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return await self._ask({"messages": turns, "add_generation_prompt": True})

    async def _count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of texts as they are; of what was counted lately, from memory."""
        keys = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._counted}
        counts = {key: self._counted[key] for key in keys if key not in new}
        counts.update(zip(new, await self._count_new(list(new.values())) if new else (), strict=True))
        for key in keys:
            self._counted[key] = counts[key]
            self._counted.move_to_end(key)
        while len(self._counted) > CACHED:
            self._counted.popitem(last=False)
        return [counts[key] for key in keys]

    async def _count_new(self, texts: Sequence[str]) -> list[int]:
        if self._vocabulary is not None:
            return [len(ids) for ids in await asyncio.to_thread(self._vocabulary.encode_ids, texts)]
        return list(await asyncio.gather(*(self._ask_text(text) for text in texts)))

    async def _ask_text(self, text: str) -> int:
        async with self._asking:
            return await self._ask({"prompt": text, "add_special_tokens": False}) if text else 0

    async def _ask(self, body: dict[str, object]) -> int:
        request = Request("POST", "/tokenize", {"model": self._model, **body})
        try:
            return await self._remote.json(request, _count, timeout_s=_TIMEOUT_S)
        except ModelNotFoundError as exc:
            if self._vocabulary is not None:
                raise
            raise UnsupportedModelError(
                f"{self._remote.what} has no /tokenize, so its tokens cannot be counted: set generator_vocabulary"
            ) from exc


def _count(reply: object) -> int:
    count = as_object(reply).get("count")
    if not isinstance(count, int):
        raise MalformedReplyError(f"/tokenize gave count={count!r}")
    return count
