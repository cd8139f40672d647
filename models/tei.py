"""What Hugging Face's text-embeddings-inference says of itself: GET /info; a /v1/models it has not."""

from dataclasses import dataclass
from typing import Self

from models.base import ModelError
from models.remote import MalformedReplyError, Remote, Request, StatusError, as_object


@dataclass(frozen=True, slots=True)
class Tei:
    """Its limits: `max_tokens` of one text, special ones included; `max_inputs` texts of one request."""

    max_tokens: int
    max_inputs: int

    @classmethod
    async def ask(cls, remote: Remote, *, timeout_s: float) -> Self | None:
        """None where the server is another, whatever it answers. Raises ModelUnavailableError if nobody answers."""
        try:
            return await remote.json(Request("GET", "/info"), cls._read, timeout_s=timeout_s)
        except ModelError as exc:
            if isinstance(exc.__cause__, StatusError | MalformedReplyError):
                return None
            raise

    @classmethod
    def _read(cls, reply: object) -> Self | None:
        info = as_object(reply)
        max_tokens, max_inputs = info.get("max_input_length"), info.get("max_client_batch_size")
        if "model_id" in info and isinstance(max_tokens, int) and isinstance(max_inputs, int):
            return cls(max_tokens, max(max_inputs, 1))
        return None
