"""The thinnest HTTP route around a search, for the programs that bring no server of their own."""

from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

Hits = list[tuple[str, str, float]]


def serve(search: Callable[[str, int], Hits], port: int) -> None:
    """POST /search with `question` and `top_k` in the query string, answered on a thread of FastAPI's pool."""
    app = FastAPI()

    @app.post("/search")
    def ask(question: str, top_k: int) -> JSONResponse:
        return JSONResponse([{"id": id_, "text": text, "score": score} for id_, text, score in search(question, top_k)])

    uvicorn.run(app, port=port, log_level="warning")
