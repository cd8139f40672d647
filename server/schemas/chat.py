"""Chat completions: OpenAI's request in, its completion and its chunks out, with citations beside them.

Offsets into the answer (`start_index`, `answer_start`, …) and into documents count code points.
"""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from indexers.filter import parse_filter
from models.base import Message
from server.base import Answer, AnswerRequest, Citation, InvalidRequestError, SearchRequest

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOL_ROLES = frozenset({"tool", "function"})


class ContentPart(BaseModel):
    type: str
    text: str | None = None
    refusal: str | None = None

    def read(self) -> str | None:
        """The part's words, None if it has none."""
        return {"text": self.text, "refusal": self.refusal}.get(self.type)


class ChatMessage(BaseModel):
    role: str
    content: str | list[ContentPart] | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = False


class ChatBody(BaseModel):
    """OpenAI's fields that mean something here, and ours (`filter`, `top_k`, `rerank`, `as_of`, `generator`).

    Others are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=1)
    filter: dict[str, object] | None = None
    top_k: int | None = Field(None, ge=1, le=100)
    rerank: bool = True
    as_of: int | None = Field(None, ge=0)
    generator: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a chat searches, and what the caller may see of it."""

    collection: str
    namespace: str
    groups: frozenset[str] | None
    top_k: int  # if the request does not say


def to_request(body: ChatBody, scope: Scope) -> AnswerRequest:
    """The pipeline's request. Raises InvalidRequestError, FilterError."""
    read = (_message(i, message) for i, message in enumerate(body.messages))
    messages = tuple(message for message in read if message is not None)
    if not messages or messages[-1].role != "user":
        role = body.messages[-1].role
        raise InvalidRequestError(f"the last message is the question, not of role {role!r}", "messages")
    search = SearchRequest(
        question=messages[-1].content,
        collection=scope.collection,
        namespaces=(scope.namespace,),
        top_k=body.top_k or scope.top_k,
        filter=parse_filter(body.filter),
        rerank=body.rerank,
        as_of=body.as_of,
        groups=scope.groups,
    )
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return AnswerRequest(
        messages=messages,
        search=search,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        stop=stop,
        seed=body.seed,
        generator=body.generator,
        streamed=bool(body.stream),
    )


def _message(index: int, message: ChatMessage) -> Message | None:
    """The message as a turn of the conversation; None for a call of tools and for what they returned."""
    where = f"messages.{index}"
    if message.role in TOOL_ROLES:
        return None
    role = ROLES.get(message.role)
    if role is None:
        raise InvalidRequestError(f"role {message.role!r} is not one of {', '.join(ROLES)}", f"{where}.role")
    content = _content(message.content, where) if isinstance(message.content, list) else message.content or ""
    if role == "assistant" and not content:
        return None
    return Message(role, content)  # type: ignore[arg-type]


def _content(parts: Sequence[ContentPart], where: str) -> str:
    words = [part.read() for part in parts]
    for part, read in zip(parts, words, strict=True):
        if read is None:
            raise InvalidRequestError(f"a content part of type {part.type!r} cannot be read: send text", where)
    return "\n".join(read or "" for read in words)


# --- out -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply's constant part, and its shapes. `base_url` is where the caller reached us: citations link there."""

    model: str
    base_url: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> dict[str, object]:
        """The unstreamed completion."""
        message = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": self.annotations(answer.citations),
        }
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
        head = {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model}
        return {**head, "choices": [choice], "usage": usage(answer), **extras(answer)}

    def delta(self, delta: dict[str, object], finish_reason: str | None = None) -> dict[str, object]:
        """A chunk with one choice."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        chunk = {**self._head(), "choices": [choice]}
        return {**chunk, "usage": None} if self.include_usage else chunk

    def last(self, answer: Answer) -> dict[str, object]:
        """The final delta: annotations, and beside it the citations."""
        delta: dict[str, object] = {"annotations": self.annotations(answer.citations)}
        return {**self.delta(delta, answer.finish_reason), **extras(answer)}

    def usage_chunk(self, answer: Answer) -> dict[str, object]:
        return {**self._head(), "choices": [], "usage": usage(answer)}

    def _head(self) -> dict[str, object]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def annotations(self, citations: Iterable[Citation]) -> list[dict[str, object]]:
        """OpenAI's typed place for sources: a span of the answer and a link to the exact words."""
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": citation.answer_start,
                    "end_index": citation.answer_end,
                    "title": _title(citation.title or citation.uri, citation.page),
                    "url": self.link(citation.document_id, citation.version, (citation.start, citation.end)),
                },
            }
            for citation in citations
        ]

    def link(self, document_id: str, version: str, span: tuple[int, int]) -> str:
        """Where the words of a span can be read."""
        query = urlencode({"version": version, "start": span[0], "end": span[1]})
        return f"{self.base_url}v1/documents/{document_id}/text?{query}"

    def source_events(self, answer: Answer) -> list[dict[str, object]]:
        """Open WebUI's source events. It shows [n] as its n-th source, so uncited numbers before a cited one count."""
        quotes: dict[int, list[str]] = {}
        for citation in answer.citations:
            quotes.setdefault(citation.number, []).append(citation.quote)
        events: list[dict[str, object]] = []
        for passage in answer.passages[: max(quotes, default=0)]:
            chunk = passage.hit.chunk
            name = _title(chunk.title or chunk.uri, chunk.page)
            link = self.link(chunk.document_id, chunk.version, (chunk.start, chunk.end))
            documents: Sequence[str] = quotes.get(passage.number) or [passage.text]
            metadata = [{"source": link, "name": name, "url": link} for _ in documents]
            data = {"source": {"name": name, "id": link}, "document": documents, "metadata": metadata}
            events.append({"event": {"type": "source", "data": data}})
        return events


def _title(title: str, page: int | None) -> str:
    return title if page is None else f"{title}, p. {page}"


def usage(answer: Answer) -> dict[str, int]:
    prompt, completion = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def extras(answer: Answer) -> dict[str, object]:
    """What OpenAI's shape has no place for: `citations`, whole, and under `refdesk` how the answer came about."""
    return {
        "citations": [asdict(citation) for citation in answer.citations],
        "refdesk": {
            "refused": answer.refused,
            "sentences": [asdict(sentence) for sentence in answer.sentences],
            "generator": answer.generator,
            "reranker": answer.search.reranker,
            "commits": dict(answer.search.commits),
            "cached": answer.search.cached is not None,
            "degraded": answer.degraded,
            "timings_ms": dict(answer.timings_ms),
        },
    }
