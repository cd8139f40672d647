"""An embedder behind /v1/embeddings: refdesk's own model node, vLLM, TEI, or OpenAI.

Texts are cut and counted here, by the model's own tokenizer. A model node also gives token vectors (one bit a dimension
for passages), says who it is by its fingerprint, and reads token ids; the others give pooled vectors of texts alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import cast

from models.base import (
    EmbedderInfo,
    InputTooLongError,
    Int32,
    ModelNotFoundError,
    Passage,
    PassageEmbedding,
    QueryEmbedding,
    Tokenizer,
    UnsupportedModelError,
)
from models.embedding_wire import Item, read_items
from models.pace import Pace
from models.remote import Json, MalformedReplyError, Remote, Request, as_list, as_object, together
from models.tei import Tei

QUERY_TIMEOUT_S = 5.0
BULK_TIMEOUT_S = 120.0
UNKNOWN_LIMIT = 512  # tokens taken to fit where neither server nor folder says
_BLANK = " "  # stands for an empty text, which the API refuses: it has no tokens either


@dataclass(frozen=True, slots=True)
class LocalPart:
    """What is known here of a remote embedder: its tokenizer, and what its folder says, if there is one."""

    tokenizer: Tokenizer
    special_tokens: int = 0
    max_tokens: int | None = None
    query_prefix: str = ""
    passage_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bulk work may ask of the server."""

    inputs: int = 100  # a request
    in_flight: int = 50
    requests_per_minute: float = 3000


class RemoteEmbedder:
    """Implements Embedder. Use `connect`. One event loop uses it."""

    def __init__(
        self, remote: Remote, model: str, info: EmbedderInfo, local: LocalPart, *, limits: Limits, is_node: bool
    ) -> None:
        self.info, self.tokenizer = info, local.tokenizer
        self._remote, self._model, self._local, self._limits = remote, model, local, limits
        self._is_node = is_node
        self._pace = Pace(limits.in_flight, limits.requests_per_minute)
        prefix, passage = local.tokenizer.count(local.query_prefix), local.tokenizer.count(local.passage_prefix)
        self._query_special = info.special_tokens - passage + prefix

    @classmethod
    async def connect(
        cls, remote: Remote, name: str, local: LocalPart, limits: Limits | None = None
    ) -> "RemoteEmbedder":
        """Learn who answers; waits a while for a server that is starting. Raises ModelNotFoundError,
        ModelUnavailableError, UnsupportedModelError for a node whose tokenizer is not the one here."""
        try:
            learnt = await _learn(remote, name, local)
        except BaseException:
            await remote.close()
            raise
        limits = limits or Limits()
        if learnt.max_inputs is not None:
            limits = replace(limits, inputs=min(limits.inputs, learnt.max_inputs))
        return cls(remote, learnt.model, learnt.info, local, limits=limits, is_node=learnt.is_node)

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        """Embed in requests of `Limits.inputs`, at the pace of bulk work and retried patiently unless `urgent`.

        Raises InputTooLongError, ModelUnavailableError.
        """
        self._remote.http  # noqa: B018 - raises if closed
        ids = await asyncio.to_thread(self._ids, passages)
        self._check_lengths(ids)
        inputs: list[object] = [
            one if self._is_node else self._local.passage_prefix + passage.text
            for one, passage in zip(ids, passages, strict=True)
        ]
        items = await self._embed(inputs, [i for i, one in enumerate(ids) if not len(one)], urgent=urgent)
        return [PassageEmbedding(item.vector, item.token_bits) for item in items]

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        """Embed questions at once, whatever the pace of bulk work; one over the limit is cut to its first tokens."""
        self._remote.http  # noqa: B018 - raises if closed
        room = self.info.max_tokens - self._query_special
        tokens = self.tokenizer.encode_batch(texts)
        prefix = "" if self._is_node else self._local.query_prefix
        cut = [
            prefix + (text if len(one) <= room else text[: int(one.offsets[room - 1, 1])])
            for text, one in zip(texts, tokens, strict=True)
        ]
        size = self._limits.inputs
        parts = [[text or _BLANK for text in cut[i : i + size]] for i in range(0, len(cut), size)]
        replies = await together([self._ask(part, input_type="query") for part in parts])
        items = [item for reply in replies for item in reply]
        counts = [min(len(one), room) + self._query_special for one in tokens]
        return [
            QueryEmbedding(item.vector, item.token_vectors, item.tokens or count)
            for item, count in zip(items, counts, strict=True)
        ]

    async def close(self) -> None:
        await self._remote.close()

    def _ids(self, passages: Sequence[Passage]) -> list[Int32]:
        bare = [passage.text for passage in passages if passage.token_ids is None]
        cut = iter(self.tokenizer.encode_batch(bare))
        return [next(cut).ids if passage.token_ids is None else passage.token_ids for passage in passages]

    def _check_lengths(self, ids: Sequence[Int32]) -> None:
        special, limit = self.info.special_tokens, self.info.max_tokens
        for i, one in enumerate(ids):
            if len(one) + special > limit:
                raise InputTooLongError(
                    f"Passage {i} has {len(one) + special} tokens, {special} of them special; {self.info.name!r} takes "
                    f"{limit}. Cut it into smaller chunks."
                )

    async def _embed(self, inputs: Sequence[object], blanks: Sequence[int], *, urgent: bool) -> list[Item]:
        """The items of all inputs; the blank ones, which token ids cannot express, are asked for once, as a text."""
        at = [i for i in range(len(inputs)) if i not in set(blanks)]
        size = self._limits.inputs
        parts = [[inputs[i] for i in at[start : start + size]] for start in range(0, len(at), size)]
        if blanks:
            parts.append([("" if self._is_node else self._local.passage_prefix) or _BLANK])
        asked = [self._ask(part, input_type="passage") if urgent else self._bulk(part) for part in parts]
        replies = await together(asked)
        blank = replies.pop()[0] if blanks else None
        found = dict(zip(at, (item for reply in replies for item in reply), strict=True))
        if blank is not None:
            found.update((i, blank) for i in blanks)
        return [found[i] for i in range(len(inputs))]

    async def _bulk(self, inputs: Sequence[object]) -> list[Item]:
        async with self._pace.slot():
            return await self._ask(inputs, input_type="passage", is_bulk=True)

    async def _ask(self, inputs: Sequence[object], *, input_type: str, is_bulk: bool = False) -> list[Item]:
        body: dict[str, object] = {"model": self._model, "input": inputs, "encoding_format": "base64"}
        if self._is_node:
            body |= {"input_type": input_type, "token_vectors": self.info.has_token_vectors}
        return await self._remote.json(
            Request("POST", "/v1/embeddings", body),
            lambda reply: read_items(reply, len(inputs), self.info.dimension),
            timeout_s=BULK_TIMEOUT_S if is_bulk else QUERY_TIMEOUT_S,
            patient=is_bulk,
        )


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What the server calls the model, what it is, and what the server takes; None: no limit is known."""

    model: str
    info: EmbedderInfo
    is_node: bool = False
    max_inputs: int | None = None


async def _learn(remote: Remote, name: str, local: LocalPart) -> _Learnt:
    try:
        served = await remote.json(Request("GET", "/v1/models"), _models, timeout_s=BULK_TIMEOUT_S, patient=True)
    except ModelNotFoundError:
        tei = await Tei.ask(remote, timeout_s=BULK_TIMEOUT_S)
        if tei is None:
            raise
        return await _probe(remote, name, local, tei.max_tokens, max_inputs=tei.max_inputs)
    model = served.get(name) or (next(iter(served.values())) if len(served) == 1 else None)
    if model is None:
        raise ModelNotFoundError(f"{remote.what} serves {sorted(served)}, not {name!r}: {remote.hint}")
    id_ = str(model["id"])
    node = model.get("refdesk")
    if isinstance(node, Mapping):
        if node.get("tokenizer") != local.tokenizer.fingerprint:
            raise UnsupportedModelError(
                f"{remote.what} cuts text by another tokenizer than {name!r} here: name one model on both sides"
            )
        return _Learnt(id_, _node_info(id_, node), is_node=True)
    return await _probe(remote, id_, local, model.get("max_model_len"))


async def _probe(
    remote: Remote, name: str, local: LocalPart, server_limit: object, *, max_inputs: int | None = None
) -> _Learnt:
    """One text says of how many dimensions the vectors are."""
    probe = Request("POST", "/v1/embeddings", {"model": name, "input": ["a"], "encoding_format": "base64"})
    (item,) = await remote.json(probe, lambda reply: read_items(reply, 1), timeout_s=BULK_TIMEOUT_S)
    return _Learnt(name, _plain_info(name, local, len(item.vector), server_limit), max_inputs=max_inputs)


def _models(reply: object) -> dict[str, Json]:
    models = [as_object(one) for one in as_list(as_object(reply).get("data"))]
    return {str(model.get("id")): model for model in models}


def _node_info(name: str, node: Json) -> EmbedderInfo:
    """A model node's own word on its embedder."""
    numbers = {key: node.get(key) for key in ("dimension", "max_tokens", "special_tokens")}
    if not all(isinstance(value, int) for value in numbers.values()):
        raise MalformedReplyError(f"a model node that says {numbers!r} of its embedder")
    counts = cast(dict[str, int], numbers)
    return EmbedderInfo(
        name=name,
        fingerprint=str(node.get("fingerprint")),
        precision=str(node.get("precision")),
        has_token_vectors=bool(node.get("has_token_vectors")),
        **counts,
    )


def _plain_info(name: str, local: LocalPart, dimension: int, server_limit: object) -> EmbedderInfo:
    known = [limit for limit in (server_limit, local.max_tokens) if isinstance(limit, int)]
    return EmbedderInfo(
        name=name,
        fingerprint=_plain_fingerprint(name, local),
        dimension=dimension,
        max_tokens=min(known, default=UNKNOWN_LIMIT),
        special_tokens=local.special_tokens,
        precision="remote",
        has_token_vectors=False,
    )


def _plain_fingerprint(name: str, local: LocalPart) -> str:
    """All that is known of a model whose weights nobody shows: its name, tokenizer and prefixes."""
    parts = ("remote", name, local.tokenizer.fingerprint, local.query_prefix, local.passage_prefix)
    return sha256(repr(parts).encode()).hexdigest()
