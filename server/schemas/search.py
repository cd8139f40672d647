"""Native search: the question in; hits with their words, their place and their ranks out, as bytes."""

from collections.abc import Mapping

import orjson
from pydantic import BaseModel, ConfigDict, Field

from server.base import SearchHit, SearchResult


class SearchBody(BaseModel):
    """A question to 1 to 8 namespaces of one collection. An unknown field is refused."""

    model_config = ConfigDict(extra="forbid")

    question: str
    collection: str | None = None
    namespace: str | None = None
    namespaces: list[str] | None = Field(None, min_length=1, max_length=8)
    top_k: int | None = Field(None, ge=1, le=100)
    filter: dict[str, object] | None = None
    rerank: bool = True
    as_of: int | None = Field(None, ge=0)


def search_reply(result: SearchResult, timings_ms: Mapping[str, float]) -> bytes:
    """The reply's JSON. `timings_ms` are those until now, the result's own end with the search."""
    return orjson.dumps(
        {
            "object": "search.result",
            "hits": [_hit(hit) for hit in result.hits],
            "commits": dict(result.commits),
            "reranker": result.reranker,
            "degraded": result.degraded,
            "cached": result.cached is not None,
            "timings_ms": dict(timings_ms),
            "usage": {"query_tokens": result.query_tokens},
        }
    )


def _hit(hit: SearchHit) -> dict[str, object]:
    chunk = hit.chunk
    return {
        "chunk_id": chunk.id,
        "document_id": chunk.document_id,
        "version": chunk.version,
        "namespace": hit.namespace,
        "uri": chunk.uri,
        "title": chunk.title,
        "score": hit.score,
        "ranks": dict(hit.ranks),
        "text": chunk.text,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "heading_path": chunk.heading_path,
        "chunk_index": chunk.index,
        "total_chunks": chunk.total_chunks,
        "token_count": chunk.token_count,
        "metadata": dict(chunk.metadata),
    }
