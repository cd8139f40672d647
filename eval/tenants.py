"""Cross-tenant reads: generated requests by generated keys over every route, none of which may show a key too much.

`python -m eval.tenants` makes a desk of many tenants in a folder of its own, in the profile that the environment's
settings name, and asks it. Every name, title, text and metadata holds a token of its own; which of them a key may see
is worked out here from its claims alone, and a reply's status, its hits and every token in it must agree.
"""

import argparse
import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from rich.console import Console
from rich.progress import track
from rich.table import Table

from eval import command
from eval.tenants_world import GROUPS, TOKEN, Document, Key, Sent, World, token
from server.app import create_app
from server.build import Desk, build
from server.settings import Settings

CASES = 10_000
QUESTIONS = ("How often is the pump serviced?", "Who signs for the pump?", "What is the pump of?")
OPEN = frozenset({"GET /health", "GET /ready", "GET /metrics"})
PLACES_LEFT, DOCUMENTS_LEFT = 4, 12  # at fewer no namespace is dropped, and documents are added
SHOWN = 10  # wrong replies, after which a desk is not asked any more


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what must come of it: its status, and what `check` says against the reply (None: nothing)."""

    route: str
    path: str
    status: int
    fields: dict[str, object] = field(default_factory=dict)
    check: Callable[[httpx2.Response], str | None] = lambda reply: None
    then: Callable[[httpx2.Response], Awaitable[None]] | None = None  # what a success changes


@dataclass(slots=True)
class Report:
    asked: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


Make = Callable[["Cases", Key], Case]


class Cases:
    """Makes cases of a world. Each method below is of one route; whom and what it asks for is chosen at random."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    def status(self, key: Key, role: str, collection: str, *namespaces: str, document: Document | None = None) -> int:
        """What must come of asking for these, 200 standing for every success."""
        if not key.may(role):
            return 403
        is_seen = all(key.reaches(collection, namespace) for namespace in namespaces)
        return 200 if is_seen and (document is None or key.reads(document)) else 404

    def place(self) -> tuple[str, str]:
        return self.rng.choice(self.world.places)

    def document(self) -> Document:
        return self.rng.choice(self.world.documents)

    # --- searching

    def search(self, key: Key) -> Case:
        collection, _ = self.place()
        there = [namespace for of, namespace in self.world.places if of == collection]
        asked = self.rng.sample(there, self.rng.randint(1, min(3, len(there))))
        body: dict[str, object] = {
            "question": self.rng.choice(QUESTIONS),
            "collection": collection,
            "namespaces": asked,
            "top_k": 100,
            "rerank": self.rng.random() < 0.3,
        }
        seen = {d.id for name in asked for d in self.world.documents_in(collection, name) if key.reads(d)}
        is_whole = True  # whether all that may be seen must come
        if self.rng.random() < 0.2:
            wanted = self.document()
            body["filter"] = {"owner": wanted.tokens[-1]}
            seen &= {wanted.id}
        elif len(asked) == 1 and self.rng.random() < 0.5:
            body["as_of"] = self.rng.randint(1, self.world.commits[collection, asked[0]])
            is_whole = False

        def check(reply: httpx2.Response) -> str | None:
            hits = {hit["document_id"] for hit in reply.json()["hits"]}
            missing = seen - hits if is_whole else set()
            return f"hits {sorted(hits - seen)} too many, {sorted(missing)} too few" if hits - seen or missing else None

        return Case(
            "POST /v1/search", "/v1/search", self.status(key, "read", collection, *asked), {"json": body}, check
        )

    def chat(self, key: Key) -> Case:
        collection, namespace = self.place()
        asked = {"role": "user", "content": self.rng.choice(QUESTIONS)}
        body = {"model": f"{collection}:{namespace}", "messages": [asked], "stream": self.rng.random() < 0.5}
        status = self.status(key, "read", collection, namespace)
        return Case("POST /v1/chat/completions", "/v1/chat/completions", status, {"json": body})

    # --- models

    def models(self, key: Key) -> Case:
        return Case("GET /v1/models", "/v1/models", self.status(key, "read", ""))

    def model(self, key: Key) -> Case:
        collection, namespace = self.place()
        status = self.status(key, "read", collection, namespace)
        return Case("GET /v1/models/{model}", f"/v1/models/{collection}:{namespace}", status)

    def embeddings(self, key: Key) -> Case:
        collection, namespace = self.place()
        body = {"model": f"{collection}:{namespace}", "input": "a pump"}
        status = self.status(key, "read", collection, namespace)
        return Case("POST /v1/embeddings", "/v1/embeddings", status, {"json": body})

    def rerank(self, key: Key) -> Case:
        path = self.rng.choice(("/v1/rerank", "/rerank"))
        body = {"query": "a pump", "documents": ["one pump", "two"]}
        return Case(f"POST {path}", path, self.status(key, "read", ""), {"json": body})

    # --- documents

    def documents(self, key: Key) -> Case:
        collection, namespace = self.place()
        seen = {d.id for d in self.world.documents_in(collection, namespace) if key.reads(d)}

        def check(reply: httpx2.Response) -> str | None:
            listed = {document["id"] for document in reply.json()["data"]}
            return f"{sorted(listed ^ seen)} too many or too few" if listed != seen else None

        params = {"collection": collection, "namespace": namespace, "limit": 1000}
        status = self.status(key, "read", collection, namespace)
        return Case("GET /v1/documents", "/v1/documents", status, {"params": params}, check)

    def read(self, key: Key) -> Case:
        document, part = self.document(), self.rng.choice(("", "/text", "/original"))
        params = {"version": self.rng.choice(document.versions)} if part == "/text" else {}
        status = self.status(key, "read", document.collection, document.namespace, document=document)
        path = f"/v1/documents/{document.id}{part}"
        return Case(f"GET /v1/documents/{{document_id}}{part}", path, status, {"params": params})

    def verify(self, key: Key) -> Case:
        document = self.document()
        version, token = self.rng.choice(list(zip(document.versions, document.tokens, strict=True)))
        start = len("# ")
        quote = token if self.rng.random() < 0.5 else "zz" + token[2:]
        body = {
            "document_id": document.id,
            "version": version,
            "start": start,
            "end": start + len(token),
            "quote": quote,
        }
        expected = "not_found"
        if key.reaches(document.collection, document.namespace) and key.reads(document):
            expected = "verified" if quote == token else "mismatch"

        def check(reply: httpx2.Response) -> str | None:
            said = reply.json()["status"]
            return None if said == expected else f"{said}, not {expected}"

        route = "POST /v1/citations/verify"
        return Case(route, "/v1/citations/verify", self.status(key, "read", ""), {"json": body}, check)

    def upload(self, key: Key) -> Case:
        collection, namespace = self.place()
        there = self.world.documents_in(collection, namespace)
        is_scarce = len(self.world.documents) < DOCUMENTS_LEFT
        replaced = self.rng.choice(there) if there and not is_scarce and self.rng.random() < 0.6 else None
        sent = Sent.make(self.rng, collection, namespace, uri=replaced.uri if replaced else None)

        async def then(reply: httpx2.Response) -> None:
            await self.world.learn(sent, reply.json()["document_ids"][0])

        status = self.status(key, "write", collection, namespace)
        return Case("POST /v1/documents", "/v1/documents", status, sent.form(), then=then)

    def patch(self, key: Key) -> Case:
        document = self.document()
        groups = tuple(sorted(self.rng.sample(GROUPS, self.rng.randint(0, 2))))

        async def then(_: httpx2.Response) -> None:
            document.groups = groups

        status = self.status(key, "write", document.collection, document.namespace, document=document)
        body = {"groups": groups, "metadata": {"checked": True}}
        route = "PATCH /v1/documents/{document_id}"
        return Case(route, f"/v1/documents/{document.id}", status, {"json": body}, then=then)

    def delete_many(self, key: Key) -> Case:
        """By ids, uris or a filter, of which some are of other namespaces."""
        if len(self.world.documents) < DOCUMENTS_LEFT:
            return self.upload(key)
        collection, namespace = self.place()
        named = self.rng.sample(self.world.documents, 3)
        there = self.world.documents_in(collection, namespace)
        named += self.rng.sample(there, min(1, len(there)))
        by: dict[str, object] = {"ids": [d.id for d in named]}
        if self.rng.random() < 0.6:
            by = {"uris": [d.uri for d in named]}
        elif self.rng.random() < 0.5:
            by = {"filter": {"owner": {"$in": [d.tokens[-1] for d in named]}}}
        going = [d for d in {d.id: d for d in named}.values() if d in there and key.reads(d)]

        def check(reply: httpx2.Response) -> str | None:
            deleted = reply.json()["deleted"]
            return None if deleted == len(going) else f"{deleted} deleted, not {len(going)}"

        async def then(_: httpx2.Response) -> None:
            for document in going:
                self.world.forget(document)

        body = {"collection": collection, "namespace": namespace, **by}
        status = self.status(key, "write", collection, namespace)
        return Case("POST /v1/documents/delete", "/v1/documents/delete", status, {"json": body}, check, then)

    def drop(self, key: Key) -> Case:
        """A namespace, which is mostly not there."""
        collection, namespace = self.place()
        is_there = len(self.world.places) > PLACES_LEFT and self.rng.random() < 0.3
        name = namespace if is_there else token(self.rng)

        async def then(_: httpx2.Response) -> None:
            self.world.places.remove((collection, namespace))
            for document in self.world.documents_in(collection, namespace):
                self.world.forget(document)

        status = 403 if key.groups is not None else self.status(key, "admin", collection, name)
        route = "DELETE /v1/namespaces/{namespace}"
        params = {"collection": collection}
        status = status if is_there or status == 403 else 404
        return Case(route, f"/v1/namespaces/{name}", status, {"params": params}, then=then)

    def delete(self, key: Key) -> Case:
        if len(self.world.documents) < DOCUMENTS_LEFT:
            return self.upload(key)
        document = self.document()

        async def then(_: httpx2.Response) -> None:
            self.world.forget(document)

        status = self.status(key, "write", document.collection, document.namespace, document=document)
        route = "DELETE /v1/documents/{document_id}"
        return Case(route, f"/v1/documents/{document.id}", status, then=then)

    def failures(self, key: Key) -> Case:
        """Of documents that nobody could read, and whose groups nobody knows."""
        collection, namespace = self.place()
        params = {"collection": collection, "namespace": namespace}
        status = 403 if key.groups is not None else self.status(key, "admin", collection, namespace)
        return Case("GET /v1/failures", "/v1/failures", status, {"params": params})

    # --- jobs

    def jobs(self, key: Key) -> Case:
        seen = {job.id for job in self.world.jobs if key.sees(job)}

        def check(reply: httpx2.Response) -> str | None:
            listed = {job["id"] for job in reply.json()["data"]}
            return None if listed == seen else f"jobs {sorted(listed ^ seen)} too many or too few"

        return Case("GET /v1/jobs", "/v1/jobs", self.status(key, "write", ""), {"params": {"limit": 1000}}, check)

    def job(self, key: Key) -> Case:
        job, is_cancelled = self.rng.choice(self.world.jobs), self.rng.random() < 0.5
        done = 409 if is_cancelled else 200
        status = 403 if not key.may("write") else done if key.sees(job) else 404
        route = "POST /v1/jobs/{job_id}/cancel" if is_cancelled else "GET /v1/jobs/{job_id}"
        return Case(route, f"/v1/jobs/{job.id}" + ("/cancel" if is_cancelled else ""), status)

    # --- for administrators

    def keys(self, key: Key) -> Case:
        return Case("GET /v1/keys", "/v1/keys", 200 if key.is_whole_admin else 403)

    def add_key(self, key: Key) -> Case:
        claims = self.world.random_claims(self.rng)
        gives_more = key.groups is not None and (claims.groups is None or not set(claims.groups) <= key.groups)
        body = {"name": "more", "roles": claims.roles, "namespaces": claims.namespaces, "groups": claims.groups}

        async def then(reply: httpx2.Response) -> None:
            self.world.keys.append(Key.of(reply.json()["id"], reply.json()["key"], claims))

        status = 403 if gives_more or not key.is_whole_admin else 201
        return Case("POST /v1/keys", "/v1/keys", status, {"json": body}, then=then)

    def revoke(self, key: Key) -> Case:
        return Case("DELETE /v1/keys/{key_id}", "/v1/keys/key_of_nobody", 404 if key.is_whole_admin else 403)

    def desk_status(self, key: Key) -> Case:
        return Case("GET /v1/status", "/v1/status", 200 if key.is_whole_admin else 403)

    def repair(self, key: Key) -> Case:
        return Case("POST /v1/repair", "/v1/repair", 200 if key.is_whole_admin else 403)

    def local(self, key: Key) -> Case:
        return Case("POST /v1/local/ingest", "/v1/local/ingest", 403, {"json": {"path": "/"}})

    def open(self, key: Key) -> Case:
        route = self.rng.choice(sorted(OPEN | {"GET /openapi.json"}))
        return Case(route, route.removeprefix("GET "), 200)


MAKERS: tuple[tuple[Make, int], ...] = (  # and how often each
    (Cases.search, 30), (Cases.chat, 8), (Cases.models, 3), (Cases.model, 4), (Cases.embeddings, 3), (Cases.rerank, 2),
    (Cases.documents, 8), (Cases.read, 16), (Cases.verify, 8), (Cases.upload, 5), (Cases.delete, 2), (Cases.patch, 3),
    (Cases.delete_many, 2), (Cases.failures, 3), (Cases.drop, 1), (Cases.jobs, 3),
    (Cases.job, 5), (Cases.keys, 1), (Cases.add_key, 1), (Cases.revoke, 1), (Cases.desk_status, 1), (Cases.local, 1),
    (Cases.open, 2), (Cases.repair, 1),
)  # fmt: skip


async def ask(http: httpx2.AsyncClient, world: World, key: Key, case: Case) -> str | None:
    """What is wrong with the reply, if anything."""
    reply = await http.request(case.route.split()[0], case.path, headers=key.headers, **case.fields)  # type: ignore[arg-type]
    if reply.status_code != case.status and not (case.status == 200 and reply.status_code == 201):
        return f"status {reply.status_code}, not {case.status}: {reply.text[:200]}"
    told = {*TOKEN.findall(_said(reply)), *TOKEN.findall(str(reply.headers))}
    known = {*TOKEN.findall(json.dumps(case.fields, default=str)), *TOKEN.findall(case.path)}
    if leaked := told - known - (set() if case.route in OPEN else world.visible_to(key)):
        return f"shows {sorted(leaked)[:3]}"
    if case.status < 300:
        if (wrong := case.check(reply)) is not None:
            return wrong
        if case.then is not None:
            await case.then(reply)
    return None


def _said(reply: httpx2.Response) -> str:
    """A reply's text; a stream's deltas joined as well, since one may end amid a token."""
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        return reply.text
    lines = (line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {"))
    choices = [choice for line in lines for choice in json.loads(line).get("choices", ())]
    return reply.text + "".join(choice["delta"].get("content") or "" for choice in choices)


async def check(desk: Desk, cases: int, seed: int, *, stop_at: int = SHOWN, show: bool = False) -> Report:
    """Ask a desk of no tenants yet, until so many replies were wrong."""
    rng, report = random.Random(seed), Report()
    app = create_app(desk)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=True)
    async with httpx2.AsyncClient(transport=transport, base_url="http://desk") as http:
        world = await World.make(desk, http, rng)
        made, weights = Cases(world, rng), [weight for _, weight in MAKERS]
        for _ in track(range(cases), "cases", disable=not show):
            key = rng.choice(world.keys)
            case = rng.choices(MAKERS, weights)[0][0](made, key)
            report.asked[case.route] += 1
            report.refused[case.route] += case.status in {403, 404}
            if (wrong := await ask(http, world, key, case)) is not None:
                report.wrong.append(f"{case.route} by {key}: {wrong}")
                if len(report.wrong) == stop_at:
                    break
    return report


def routes(desk: Desk) -> frozenset[str]:
    """Every route of the app, as "METHOD /path"."""
    paths = create_app(desk).openapi()["paths"]
    return frozenset({f"{method.upper()} {path}" for path, methods in paths.items() for method in methods})


def table(report: Report) -> Table:
    out = Table("route", "cases", "refused", title="cross-tenant requests")
    for route, count in sorted(report.asked.items()):
        out.add_row(route, str(count), str(report.refused[route]))
    out.add_section()
    out.add_row("all", str(report.asked.total()), str(report.refused.total()))
    return out


async def run(cases: int, seed: int) -> tuple[Report, frozenset[str]]:
    with tempfile.TemporaryDirectory() as folder:
        desk = await build(Settings(data_dir=Path(folder), embedder="fake", generator="fake"), command="eval.tenants")
        try:
            report = await check(desk, cases, seed, show=True)
            return report, routes(desk) - report.asked.keys()
        finally:
            await desk.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    report, missed = asyncio.run(run(given.cases, given.seed))
    console = Console()
    console.print(table(report))
    for line in [*report.wrong, *(f"{route} was not asked" for route in sorted(missed))]:
        console.print(line, style="red", markup=False)
    console.print(f"{len(report.wrong)} of {report.asked.total()} replies were wrong")
    return 1 if report.wrong or missed else 0


if __name__ == "__main__":
    command.run(main)
