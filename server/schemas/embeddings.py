"""Embeddings: text or token ids in, vectors as floats or as base64 of little-endian float32 out."""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field

from models.base import Float32

MAX_INPUTS = 2048  # OpenAI's limit

TokenIds = Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
Inputs = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
TokenInputs = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]


class EmbeddingsBody(BaseModel):
    """OpenAI's fields; `input_type` is ours: models that tell questions from passages embed them differently."""

    model_config = ConfigDict(extra="ignore")

    input: Text | Inputs | TokenIds | TokenInputs
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    input_type: Literal["passage", "query"] = "passage"


def embeddings_reply(vectors: Sequence[Float32], model: str, *, as_base64: bool, token_count: int) -> bytes:
    """The reply's JSON."""
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(vector) if as_base64 else vector}
        for i, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": token_count, "total_tokens": token_count}
    reply = {"object": "list", "data": data, "model": model, "usage": usage}
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(vector: Float32) -> str:
    return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()
