"""A Pinecone index for tests: a real HTTP server that speaks the data plane's wire over records in memory.

Filters mean what indexers.filter says, vectors are compared one by one. Writes are numbered and shown late, as
Pinecone's are: each request that reads lets one more of them be seen.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from indexers.base import FilterError
from indexers.filter import matches, parse_filter

Records = dict[str, dict[str, Any]]
Change = Callable[[Records], None]


class Failure(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class PineconeServer:
    """What the index holds, and how it misbehaves."""

    def __init__(self, dimension: int, metric: str = "cosine") -> None:
        self.dimension, self.metric = dimension, metric
        self.spaces: dict[str, Records] = {}
        self.late: dict[str, deque[tuple[int, Change]]] = {}
        self.shown: dict[str, int] = {}
        self.written = 0
        self.is_late = True  # shows writes one by one, as it is asked
        self.most_changed = 100_000  # records that one update or deletion by filter reaches
        self.failures: deque[int] = deque()  # statuses that the next requests are answered with
        self.requests: list[tuple[str, int]] = []  # path and size of each
        self.url = ""

    # --- writing

    def write(self, space: str, change: Change) -> dict[str, str]:
        self._space(space)
        self.written += 1
        self.late[space].append((self.written, change))
        if not self.is_late:
            self._show(space, len(self.late[space]))
        return {"x-pinecone-request-lsn": str(self.written)}

    def upsert(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        vectors = body["vectors"]
        if not 1 <= len(vectors) <= 1000:
            raise Failure(400, "INVALID_ARGUMENT", f"{len(vectors)} vectors")
        for one in vectors:
            self._check(one)
        self.spaces.setdefault(body.get("namespace", ""), {})
        headers = self.write(body.get("namespace", ""), lambda records: records.update({v["id"]: v for v in vectors}))
        return {"upsertedCount": len(vectors)}, headers

    def update(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        space = body.get("namespace", "")
        if body.get("dryRun"):
            return {"matchedRecords": len(self._matching(self.read(space), body["filter"]))}, {}

        def change(records: Records) -> None:
            ids = [body["id"]] if "id" in body else self._matching(records, body["filter"])
            for id_ in ids[: self.most_changed]:
                metadata = {**records[id_]["metadata"], **body.get("setMetadata", {})}
                records[id_] = {**records[id_], "metadata": metadata}

        return {}, self.write(space, change)

    def delete(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        def change(records: Records) -> None:
            ids = body.get("ids") or (
                list(records) if body.get("deleteAll") else self._matching(records, body["filter"])
            )
            for id_ in ids[: self.most_changed]:
                records.pop(id_, None)

        return {}, self.write(body.get("namespace", ""), change)

    # --- reading

    def read(self, space: str) -> Records:
        """The records shown now, after which one more write is."""
        self._show(space, 1)
        return self._space(space)

    def query(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        space = body.get("namespace", "")
        records = self.read(space) if space in self.spaces else {}
        ids = self._matching(records, body["filter"]) if body.get("filter") else list(records)
        question = np.array(body["vector"], np.float32)
        if question.shape != (self.dimension,):
            raise Failure(400, "INVALID_ARGUMENT", f"Vector dimension {len(question)} does not match {self.dimension}")
        scores = {id_: self._score(question, records[id_]) for id_ in ids}
        best = sorted(scores, key=lambda id_: scores[id_], reverse=self.metric != "euclidean")[: body["topK"]]
        shown = [{"id": id_, "score": scores[id_], **_parts(records[id_], body)} for id_ in best]
        headers = {"x-pinecone-max-indexed-lsn": str(self.shown.get(space, 0))}
        return {"matches": shown, "namespace": space, "usage": {"readUnits": 1}}, headers

    def fetch_by_metadata(self, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        records = self.read(body.get("namespace", ""))
        ids = sorted(self._matching(records, body["filter"]))
        ids = [id_ for id_ in ids if id_ > body.get("paginationToken", "")]
        page = ids[: body.get("limit", 100)]
        following = {"pagination": {"next": page[-1]}} if len(ids) > len(page) else {}
        vectors = {id_: records[id_] for id_ in page}
        return {"vectors": vectors, "namespace": body.get("namespace", ""), "usage": {"readUnits": 1}, **following}, {}

    def fetch(self, ids: list[str], space: str) -> dict[str, Any]:
        records = self.read(space)
        return {"vectors": {i: records[i] for i in ids if i in records}, "namespace": space, "usage": {"readUnits": 1}}

    def stats(self) -> dict[str, Any]:
        counts = {space: {"vectorCount": len(records)} for space, records in self.spaces.items()}
        total = sum(one["vectorCount"] for one in counts.values())
        shape = {"dimension": self.dimension, "metric": self.metric, "indexFullness": 0.0, "vectorType": "dense"}
        return {"namespaces": counts, "totalVectorCount": total, **shape}

    # --- namespaces

    def make(self, name: str) -> dict[str, Any]:
        if name in self.spaces:
            raise Failure(409, "ALREADY_EXISTS", "namespace exists")
        if not name.isascii() or not 1 <= len(name) <= 512:
            raise Failure(400, "INVALID_ARGUMENT", "namespace names are 1 to 512 ASCII characters")
        self.spaces[name] = {}
        return self.describe(name)

    def describe(self, name: str) -> dict[str, Any]:
        return {"name": name, "record_count": str(len(self._space(name)))}

    def drop(self, name: str) -> dict[str, Any]:
        self._space(name)
        for kept in (self.spaces, self.late, self.shown):
            kept.pop(name, None)
        return {}

    def names(self, prefix: str, limit: int, after: str) -> dict[str, Any]:
        names = [name for name in sorted(self.spaces) if name.startswith(prefix) and name > after]
        found: dict[str, Any] = {"namespaces": [self.describe(name) for name in names[:limit]]}
        return found | ({"pagination": {"next": names[limit - 1]}} if len(names) > limit else {})

    # --- inside

    def _space(self, name: str) -> Records:
        if name not in self.spaces:
            raise Failure(404, "NOT_FOUND", "Namespace not found")
        self.late.setdefault(name, deque())
        return self.spaces[name]

    def _show(self, space: str, most: int) -> None:
        records = self._space(space)
        for _ in range(min(most, len(self.late[space]))):
            self.shown[space], change = self.late[space].popleft()
            change(records)

    def _check(self, one: dict[str, Any]) -> None:
        if not one["id"].isascii() or not 1 <= len(one["id"]) <= 512:
            raise Failure(400, "INVALID_ARGUMENT", "ids are 1 to 512 ASCII characters")
        if len(one["values"]) != self.dimension or not any(one["values"]):
            raise Failure(400, "INVALID_ARGUMENT", "Dense vectors must contain at least one non-zero value")
        for key, value in one.get("metadata", {}).items():
            is_list = isinstance(value, list) and all(isinstance(v, str) for v in value)
            if not isinstance(value, str | int | float | bool) and not is_list:
                raise Failure(
                    400, "INVALID_ARGUMENT", f"Metadata value of {key} must be string, number, boolean or list"
                )
        if len(orjson.dumps(one.get("metadata", {}))) > 40 * 1024:
            raise Failure(400, "INVALID_ARGUMENT", "Metadata size exceeds the limit of 40960 bytes per vector")

    def _matching(self, records: Records, raw: object) -> list[str]:
        try:
            parsed = parse_filter(raw)
        except FilterError as exc:
            raise Failure(400, "INVALID_ARGUMENT", str(exc)) from exc
        if parsed is None:
            raise Failure(400, "INVALID_ARGUMENT", "an empty filter")
        return [id_ for id_, one in records.items() if matches(parsed, one.get("metadata", {}))]

    def _score(self, question: "np.ndarray[Any, np.dtype[np.float32]]", record: dict[str, Any]) -> float:
        vector = np.array(record["values"], np.float32)
        if self.metric == "euclidean":
            return float(np.sum((vector - question) ** 2))
        lengths = np.linalg.norm(vector) * np.linalg.norm(question) if self.metric == "cosine" else 1.0
        return float(vector @ question / lengths)


def _parts(record: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    values = {"values": record["values"]} if body.get("includeValues") else {}
    return values | ({"metadata": record.get("metadata", {})} if body.get("includeMetadata") else {})


def _app(server: PineconeServer, api_key: str) -> FastAPI:
    app = FastAPI()
    posts = {
        "/vectors/upsert": server.upsert,
        "/vectors/update": server.update,
        "/vectors/delete": server.delete,
        "/vectors/fetch_by_metadata": server.fetch_by_metadata,
        "/query": server.query,
    }

    def answer(content: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
        return Response(orjson.dumps(content), status, dict(headers or {}), "application/json")

    @app.exception_handler(Failure)
    async def refuse(_: Request, failure: Failure) -> Response:
        error = {"error": {"code": failure.code, "message": failure.message}, "status": failure.status}
        return answer(error, failure.headers, failure.status)

    @app.middleware("http")
    async def check(request: Request, go_on: Any) -> Response:
        body = await request.body()
        server.requests.append((request.url.path, len(body)))
        if request.headers.get("api-key") != api_key:
            return answer({"error": {"code": "UNAUTHENTICATED", "message": "Invalid API key"}, "status": 401}, {}, 401)
        if len(body) > 2 * 1024 * 1024:
            return answer({"code": 11, "message": "message length too large", "details": []}, {}, 400)
        if server.failures:
            status = server.failures.popleft()
            return answer({"code": 14, "message": "come back", "details": []}, {"retry-after": "0"}, status)
        return await go_on(request)

    @app.post("/describe_index_stats")
    async def stats() -> Response:
        return answer(server.stats())

    @app.get("/vectors/fetch")
    async def fetch(request: Request) -> Response:
        return answer(server.fetch(request.query_params.getlist("ids"), request.query_params.get("namespace", "")))

    @app.api_route("/namespaces", methods=["GET", "POST"])
    async def namespaces(request: Request) -> Response:
        if request.method == "POST":
            return answer(server.make(orjson.loads(await request.body())["name"]))
        asked = request.query_params
        return answer(
            server.names(asked.get("prefix", ""), int(asked.get("limit", 100)), asked.get("paginationToken", ""))
        )

    @app.api_route("/namespaces/{name:path}", methods=["GET", "DELETE"])
    async def namespace(request: Request, name: str) -> Response:
        return answer(server.drop(name) if request.method == "DELETE" else server.describe(name))

    @app.post("/{path:path}")
    async def post(request: Request, path: str) -> Response:
        if f"/{path}" not in posts:
            raise Failure(404, "NOT_FOUND", f"no path /{path}")
        return answer(*posts[f"/{path}"](orjson.loads(await request.body())))

    return app


@contextmanager
def pinecone_server(dimension: int, metric: str = "cosine", *, api_key: str = "key") -> Iterator[PineconeServer]:
    """The server, listening on a free port of the loopback interface."""
    server = PineconeServer(dimension, metric)
    config = uvicorn.Config(_app(server, api_key), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    runner = uvicorn.Server(config)
    thread = Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        thread.join(0.01)
        assert thread.is_alive(), "the server did not start"
    port = runner.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        runner.should_exit = True
        thread.join()
