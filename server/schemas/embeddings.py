"""Embeddings: text or token ids in, vectors as floats or as base64 of little-endian float32 out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from models.base import Float32, UInt8
from models.embedding_wire import to_base64

MAX_INPUTS = 2048  # OpenAI's limit

TokenIds = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
Inputs = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
TokenInputs = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]


def _form(given: object) -> str:
    """Which of the forms of `input` is meant: the first item tells, so that a mistake further on is named as such."""
    if not isinstance(given, list):
        return "a text"
    first = given[0] if given else ""
    return (
        "token ids"
        if isinstance(first, int | float)
        else "lists of token ids"
        if isinstance(first, list)
        else "a list of texts"
    )


Input = Annotated[
    Annotated[Text, Tag("a text")]
    | Annotated[Inputs, Tag("a list of texts")]
    | Annotated[TokenIds, Tag("token ids")]
    | Annotated[TokenInputs, Tag("lists of token ids")],
    Discriminator(_form),
]


class EmbeddingsBody(BaseModel):
    """OpenAI's fields, and two of ours: `input_type`, since some models tell questions from passages; `token_vectors`
    asks for them too, as another refdesk does whose model node this is."""

    model_config = ConfigDict(extra="ignore")

    input: Input
    model: str
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1)
    input_type: Literal["passage", "query"] = "passage"
    token_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Embedded:
    """One input's reply: its vector, how many tokens went in, and, if asked for, what late interaction reads."""

    vector: Float32
    tokens: int
    token_bits: UInt8 | None = None
    token_vectors: Float32 | None = None


def embeddings_reply(body: EmbeddingsBody, embedded: Sequence[Embedded]) -> bytes:
    """The reply's JSON."""
    count = sum(one.tokens for one in embedded)
    usage = {"prompt_tokens": count, "total_tokens": count}
    data = [_item(i, one, body) for i, one in enumerate(embedded)]
    reply = {"object": "list", "data": data, "model": body.model, "usage": usage}
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def _item(index: int, one: Embedded, body: EmbeddingsBody) -> dict[str, object]:
    vector = to_base64(one.vector) if body.encoding_format == "base64" else one.vector
    item: dict[str, object] = {"object": "embedding", "index": index, "embedding": vector}
    if body.token_vectors:
        item["tokens"] = one.tokens
        item["token_bits"] = None if one.token_bits is None else to_base64(one.token_bits)
        item["token_vectors"] = None if one.token_vectors is None else to_base64(one.token_vectors)
    return item
