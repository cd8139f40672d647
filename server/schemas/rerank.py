"""Rerank on one path in three shapes: Cohere's and Jina's (`documents`), TEI's (`texts`), Pinecone's (its headers)."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.base import InvalidRequestError

MAX_DOCUMENTS = 1000  # Cohere's limit
RerankDialect = Literal["cohere", "tei", "pinecone"]


class RerankBody(BaseModel):
    """The fields of all three that mean something here; others are ignored."""

    model_config = ConfigDict(extra="ignore")

    query: str = Field(min_length=1)
    documents: list[str | dict[str, object]] | None = Field(None, min_length=1, max_length=MAX_DOCUMENTS)
    texts: list[str] | None = Field(None, min_length=1, max_length=MAX_DOCUMENTS)
    model: str | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    return_text: bool = False
    raw_scores: bool = False
    rank_fields: list[str] = Field(default_factory=lambda: ["text"], min_length=1)


def dialect_of(body: RerankBody, headers: Mapping[str, str]) -> RerankDialect:
    """Whose shape a request has. Raises InvalidRequestError without documents or texts."""
    if body.texts is not None:
        return "tei"
    if body.documents is None:
        raise InvalidRequestError("documents: missing; send a list of texts", "documents")
    return "pinecone" if "x-pinecone-api-version" in headers or "api-key" in headers else "cohere"


def texts_of(body: RerankBody) -> list[str]:
    """The words to be scored: of a document that is an object, its rank_fields, a line each."""
    if body.texts is not None:
        return body.texts
    return [_text(i, document, body.rank_fields) for i, document in enumerate(body.documents or ())]


def _text(index: int, document: str | Mapping[str, object], fields: Sequence[str]) -> str:
    if isinstance(document, str):
        return document
    values = [document.get(field) for field in fields]
    if not all(isinstance(value, str) for value in values):
        raise InvalidRequestError(f"documents.{index} has no text under {', '.join(map(repr, fields))}", "documents")
    return "\n".join(map(str, values))


def rerank_reply(
    body: RerankBody, dialect: RerankDialect, scores: Sequence[float], *, model: str, tokens: int
) -> object:
    """The reply: best first, equal scores in the order of the request, the first `top_n`."""
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: body.top_n]
    if dialect == "tei":
        texts = body.texts or []
        return [{"index": i, "score": scores[i]} | ({"text": texts[i]} if body.return_text else {}) for i in ranked]
    documents = body.documents or []
    if dialect == "pinecone":
        with_documents = body.return_documents is not False
        data = [
            {"index": i, "score": scores[i]} | ({"document": _document(documents[i])} if with_documents else {})
            for i in ranked
        ]
        return {"model": model, "data": data, "usage": {"rerank_units": 1}}
    results = [
        {"index": i, "relevance_score": scores[i]}
        | ({"document": _document(documents[i])} if body.return_documents else {})
        for i in ranked
    ]
    return {
        "id": f"rerank-{secrets.token_hex(12)}",
        "object": "rerank",
        "model": model,
        "results": results,
        "usage": {"total_tokens": tokens},
        "meta": {"billed_units": {"search_units": 1}},
    }


def _document(document: str | dict[str, object]) -> dict[str, object]:
    return {"text": document} if isinstance(document, str) else document
