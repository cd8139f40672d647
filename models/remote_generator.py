"""A generator behind an OpenAI-compatible chat API: vLLM's, or OpenAI's. Streams; a closed stream ends the work there.

What the server says of itself (the model's name, its context length) is learned when it first answers, so that a
server which is still loading its weights needs no restart here.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

import httpx2

from models.base import (
    Delta,
    GenerationOptions,
    GeneratorInfo,
    Message,
    ModelNotFoundError,
    Prompt,
    UnsupportedModelError,
    Usage,
)
from models.remote import MalformedReplyError, Remote, Request, StatusError, as_list, as_object, parse
from models.remote_tokens import RemoteTokens, Vocabulary
from models.saying import check_length, timeout_error
from models.streaming import StopScanner

_MODELS_TIMEOUT_S = 5.0
_MOST_FRAME = 64  # tokens that a chat template adds to a message, generously
_STOPS_SENT = 4  # the most that OpenAI takes; further ones are looked for here alone


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One event of the stream."""

    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    usage: Usage | None = None


class RemoteGenerator:
    """Implements Generator. `name` is the server's name of the model, or of one of its LoRA adapters.

    `context_length` None: the server's own (vLLM's max_model_len). One event loop uses it.
    """

    def __init__(
        self, remote: Remote, name: str, *, vocabulary: Vocabulary | None = None, context_length: int | None = None
    ) -> None:
        self._remote, self._name, self._given_length = remote, name, context_length
        self._tokens = RemoteTokens(remote, name, vocabulary)
        self._served: Mapping[str, int | None] = {}  # what the server has → its context length
        fingerprint = sha256(f"remote:{name}".encode()).hexdigest()
        self.info = GeneratorInfo(name, fingerprint, context_length or 0, is_language_model=True, has_adapters=True)

    async def learn(self) -> None:
        """Ask the server what it serves. Raises ModelNotFoundError, UnsupportedModelError without a context length."""
        served = await self._remote.json(Request("GET", "/v1/models"), _served, timeout_s=_MODELS_TIMEOUT_S)
        if self._name not in served:
            raise ModelNotFoundError(f"{self._remote.what} serves {sorted(served)}: {self._remote.hint}")
        length = self._given_length or served[self._name]
        if length is None:
            raise UnsupportedModelError(
                f"{self._remote.what} does not say how many tokens the model takes: set generator_context_length"
            )
        self._served, self.info = served, replace(self.info, context_length=length)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the model's tokenizer: tokenizer.json here, or its server's."""
        await self._ready()
        return await self._tokens.count(texts)

    async def count_prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the messages in the model's chat template, the opening of the answer included."""
        await self._ready()
        return await self._tokens.count_prompt(messages)

    async def generate(self, prompt: Prompt, options: GenerationOptions) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing this closes the connection, at which the server stops.

        Retried, on other replicas first, until something of the answer has come. Raises ModelNotFoundError for an
        `options.adapter` that the server does not have.
        """
        deadline = asyncio.get_running_loop().time() + options.timeout_s
        async with aclosing(self._answer(prompt, options, deadline)) as deltas:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        delta = await anext(deltas, None)
                except TimeoutError as exc:
                    raise timeout_error(self.info, options.timeout_s) from exc
                if delta is None:
                    return
                yield delta

    async def request_body(self, prompt: Prompt, options: GenerationOptions) -> dict[str, object]:
        """The chat completion that `generate` asks for."""
        await self._ready()
        contents = await self._tokens.defused([message.content for message in prompt.messages])
        body: dict[str, object] = {
            "model": await self._model(options),
            "messages": [
                {"role": m.role, "content": content} for m, content in zip(prompt.messages, contents, strict=True)
            ],
            "max_completion_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": max(options.top_p, 1e-3),  # vLLM refuses the 0 that OpenAI takes
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if stops := [stop for stop in options.stop if stop][:_STOPS_SENT]:
            body["stop"] = stops
        if options.seed is not None:
            body["seed"] = options.seed
        return body

    async def close(self) -> None:
        await self._remote.close()

    async def _ready(self) -> None:
        self._remote.http  # noqa: B018 - raises if closed
        if not self._served:
            await self.learn()

    async def _answer(self, prompt: Prompt, options: GenerationOptions, deadline: float) -> AsyncGenerator[Delta, None]:
        body = await self.request_body(prompt, options)
        await self._check_length(prompt, options)
        async for attempt in self._remote.attempts(deadline):
            answer = _Answer(options.stop)
            async with attempt, attempt.open(Request("POST", "/v1/chat/completions", body)) as response:
                async with aclosing(_chunks(response)) as chunks:
                    async for chunk in chunks:
                        if text := answer.feed(chunk):
                            attempt.commit()
                            yield Delta(text)
                        if answer.is_whole:
                            break
                attempt.commit()
                yield await self._last(prompt, answer)

    async def _model(self, options: GenerationOptions) -> str:
        wanted = options.adapter or self._name
        if wanted not in self._served:  # an adapter may have been loaded since
            await self.learn()
        if wanted not in self._served:
            raise ModelNotFoundError(f"no adapter {wanted!r}; {self._remote.what} serves {sorted(self._served)}")
        return wanted

    async def _check_length(self, prompt: Prompt, options: GenerationOptions) -> None:
        """Raise InputTooLongError; vLLM would only answer with fewer tokens. Counted if bytes alone do not show it."""
        most = sum(
            len(message.content.encode()) + _MOST_FRAME for message in prompt.messages
        )  # a token is a byte or more
        if most + options.max_tokens > self.info.context_length:
            check_length(self.info, await self._tokens.count_prompt(prompt.messages), options.max_tokens)

    async def _last(self, prompt: Prompt, answer: "_Answer") -> Delta:
        """The delta that ends an answer. A server that gives no usage (or was cut short by a stop) is counted after."""
        rest, usage = answer.finish(), answer.usage
        if usage is None:
            completion = sum(await self._tokens.count([answer.text]))
            usage = Usage(await self._tokens.count_prompt(prompt.messages), completion)
        return Delta(rest, answer.finish_reason or "stop", usage)


class _Answer:
    """What has come of one answer."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._scanner = StopScanner(stops)
        self.text = ""
        self.finish_reason: Literal["stop", "length"] | None = None
        self.usage: Usage | None = None

    def feed(self, chunk: _Chunk) -> str:
        """What of a chunk may be sent."""
        piece = self._scanner.feed(chunk.text)
        self.text += piece
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.usage = chunk.usage or self.usage
        return piece

    @property
    def is_whole(self) -> bool:
        """Nothing more is wanted: a stop string that the server itself does not know of has come."""
        return self._scanner.stopped

    def finish(self) -> str:
        """What was held back; the server's word on why it ended does not count if a stop string ended it here."""
        if self._scanner.stopped:
            self.finish_reason = "stop"
        rest = self._scanner.finish()
        self.text += rest
        return rest


async def _chunks(response: httpx2.Response) -> AsyncGenerator[_Chunk, None]:
    """The events of a stream up to [DONE]. Raises StatusError for an error in it, MalformedReplyError if cut."""
    finished = False
    async for event in httpx2.EventSource(response):
        data = event.data.strip()
        if not data:  # a proxy's sign of life
            continue
        if data == "[DONE]":
            break
        chunk = _chunk(parse(data))
        finished = finished or chunk.finish_reason is not None
        yield chunk
    if not finished:  # an answer that ended says why; [DONE] may be missing, which some proxies swallow
        raise MalformedReplyError("the stream broke off")


def _chunk(event: object) -> _Chunk:
    body = as_object(event)
    error = body if body.get("object") == "error" else body.get("error")  # the first is older vLLM's
    if error:
        of = error if isinstance(error, Mapping) else {"message": error}
        code = str(of.get("code"))
        raise StatusError(int(code) if code.isascii() and code.isdecimal() else 500, str(of.get("message", "")))
    used = _usage(body.get("usage"))
    choices = as_list(body.get("choices") or [])
    if not choices:
        return _Chunk(usage=used)
    choice = as_object(choices[0])
    text = as_object(choice.get("delta") or {}).get("content")
    reason = choice.get("finish_reason")
    ended: Literal["stop", "length"] | None = None if reason is None else "length" if reason == "length" else "stop"
    return _Chunk(text if isinstance(text, str) else "", ended, used)


def _usage(usage: object) -> Usage | None:
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return Usage(prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def _served(reply: object) -> Mapping[str, int | None]:
    """Model id → context length, None where the server does not say; an adapter has that of the model under it."""
    models = [as_object(one) for one in as_list(as_object(reply).get("data"))]
    own = {str(m.get("id")): m.get("max_model_len") for m in models}
    lengths: dict[str, int | None] = {}
    for model in models:
        length = own[str(model.get("id"))] or own.get(str(model.get("parent")))
        lengths[str(model.get("id"))] = length if isinstance(length, int) else None
    return lengths
