"""What Hugging Face's text-embeddings-inference says of itself: GET /info; a /v1/models it has not."""

from dataclasses import dataclass
from typing import Self

from models.base import ModelNotFoundError, UnsupportedModelError
from models.remote import MalformedReplyError, Remote, Request, as_object


@dataclass(frozen=True, slots=True)
class Tei:
    """Its limits: `max_tokens` of one text, special ones included; `max_inputs` texts of one request."""

    max_tokens: int
    max_inputs: int

    @classmethod
    async def ask(cls, remote: Remote, *, timeout_s: float) -> Self | None:
        """None where the server is another. Raises ModelUnavailableError if nobody answers."""
        try:
            return await remote.json(Request("GET", "/info"), cls._read, timeout_s=timeout_s)
        except (ModelNotFoundError, UnsupportedModelError):
            return None

    @classmethod
    def _read(cls, reply: object) -> Self | None:
        info = as_object(reply)
        if "model_id" not in info:
            return None
        max_tokens, max_inputs = info.get("max_input_length"), info.get("max_client_batch_size")
        if not (isinstance(max_tokens, int) and isinstance(max_inputs, int) and min(max_tokens, max_inputs) > 0):
            raise MalformedReplyError(f"an /info of text-embeddings-inference that says no limits: {info!r:.80}")
        return cls(max_tokens, max_inputs)
