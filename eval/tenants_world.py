"""Tenants for eval/tenants.py: collections, namespaces, documents with ACLs, jobs and keys, and who may see which."""

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from server.auth import ADMIN, Claims, Keys
from server.base import Role
from server.build import Desk

TOKEN = re.compile(r"zq[0-9a-f]{12}")
GROUPS = ("red", "green", "blue")
NAMESPACES = (4, 3)  # of each collection
DOCUMENTS = 3  # of each namespace, at first
KEYS = 80
JOBS = 8
ROLES: tuple[tuple[Role, ...], ...] = (("read",), ("write",), ("read", "write"), ("admin",), ("admin", "read"))
ROLE_WEIGHTS = (4, 1, 3, 1, 1)


def token(rng: random.Random) -> str:
    """A word that stands nowhere else."""
    return f"zq{rng.getrandbits(48):012x}"


@dataclass(slots=True)
class Document:
    """`tokens` and `versions`: of each version that was stored, the present one last."""

    id: str
    collection: str
    namespace: str
    uri: str
    groups: tuple[str, ...]
    tokens: list[str]
    versions: list[str]


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    collection: str
    namespace: str
    groups: tuple[str, ...] | None  # None: the upload did not say
    sender: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A file on its way."""

    collection: str
    namespace: str
    groups: tuple[str, ...] | None  # None: those of the document that is there
    uri: str
    token: str

    @classmethod
    def make(cls, rng: random.Random, collection: str, namespace: str, *, uri: str | None = None) -> "Sent":
        groups = None if rng.random() < 0.3 else tuple(sorted(rng.sample(GROUPS, rng.randint(0, 2))))
        return cls(collection, namespace, groups, uri or f"{token(rng)}.md", token(rng))

    def form(self, **more: str) -> dict[str, Any]:
        text = f"# {self.token} pump\n\nThe pump of {self.token} is serviced every year. {self.token} signs for it.\n"
        data = {
            "collection": self.collection,
            "namespace": self.namespace,
            "metadata": f'{{"owner": "{self.token}"}}',
            **more,
        }
        if self.groups is not None:
            data["groups"] = ",".join(self.groups)
        return {"data": data, "files": {"file": (self.uri, text.encode())}}


@dataclass(frozen=True, slots=True)
class Key:
    """A key's claims, and what follows of them."""

    id: str
    secret: str = field(repr=False)
    roles: frozenset[Role]
    namespaces: tuple[str, ...] | None
    groups: frozenset[str] | None

    @classmethod
    def of(cls, id_: str, secret: str, claims: Claims) -> "Key":
        groups = None if claims.groups is None else frozenset(claims.groups)
        return cls(id_, secret, frozenset(claims.roles), claims.namespaces, groups)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    @property
    def is_whole_admin(self) -> bool:
        return "admin" in self.roles and self.namespaces is None

    def may(self, role: str) -> bool:
        return role in self.roles or "admin" in self.roles

    def reaches(self, collection: str, namespace: str) -> bool:
        if self.namespaces is None:
            return True
        return any(pattern in {f"{collection}:{namespace}", f"{collection}:*"} for pattern in self.namespaces)

    def reads(self, thing: Document | Job) -> bool:
        """By its groups; whether the namespace is reached is another question."""
        if self.groups is None or thing.groups is None:
            return self.groups is None
        return not thing.groups or any(group in self.groups for group in thing.groups)

    def sees(self, job: Job) -> bool:
        return self.reaches(job.collection, job.namespace) and (job.sender == self.id or self.reads(job))


@dataclass(slots=True)
class World:
    desk: Desk
    http: httpx2.AsyncClient
    admin: Key
    places: list[tuple[str, str]]
    names: frozenset[str]  # of all places that there ever were
    documents: list[Document] = field(default_factory=list)
    by_id: dict[str, Document] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    job_tokens: dict[str, set[str]] = field(default_factory=dict)
    commits: dict[tuple[str, str], int] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)  # the token of a file that could not be read

    @classmethod
    async def make(cls, desk: Desk, http: httpx2.AsyncClient, rng: random.Random) -> "World":
        """Tenants, their documents and keys, by the HTTP API but for the first key."""
        stored, secret = await Keys(desk.catalog).add("admin", ADMIN)
        places = [(name, token(rng)) for number in NAMESPACES for name in [token(rng)] for _ in range(number)]
        names = frozenset(name for place in places for name in place)
        world = cls(desk, http, Key.of(stored.id, secret, ADMIN), places, names)
        for collection, namespace in places:
            await world._fail(rng, collection, namespace)
            for _ in range(DOCUMENTS):
                sent = Sent.make(rng, collection, namespace)
                reply = await http.post("/v1/documents", headers=world.admin.headers, **sent.form())
                await world.learn(sent, reply.json()["document_ids"][0])
        for _ in range(KEYS):
            claims = world.random_claims(rng)
            stored, secret = await Keys(desk.catalog).add("some", claims)
            world.keys.append(Key.of(stored.id, secret, claims))
        desk.jobs.start(1)
        await world._send_jobs(rng)
        return world

    def random_claims(self, rng: random.Random) -> Claims:
        patterns = [f"{collection}:{namespace}" for collection, namespace in self.places]
        patterns += [f"{collection}:*" for collection, _ in self.places]
        namespaces = None if rng.random() < 0.2 else tuple(rng.sample(patterns, rng.randint(1, 3)))
        groups = None if rng.random() < 0.15 else tuple(rng.sample(GROUPS, rng.randint(0, len(GROUPS))))
        (roles,) = rng.choices(ROLES, ROLE_WEIGHTS)
        return Claims(roles, namespaces, groups)

    async def learn(self, sent: Sent, document_id: str) -> None:
        """Take note of what was stored."""
        reply = await self.http.get(f"/v1/documents/{document_id}", headers=self.admin.headers)
        stored = reply.json()
        document = self.by_id.get(document_id)
        if document is None:
            document = Document(document_id, sent.collection, sent.namespace, sent.uri, (), [], [])
            self.by_id[document_id] = document
            self.documents.append(document)
        if sent.groups is not None:
            document.groups = sent.groups
        document.tokens.append(sent.token)
        document.versions.append(stored["version"])
        self.commits[sent.collection, sent.namespace] = stored["commit"]

    def documents_in(self, collection: str, namespace: str) -> list[Document]:
        return [one for one in self.documents if (one.collection, one.namespace) == (collection, namespace)]

    def forget(self, document: Document) -> None:
        self.documents.remove(document)
        del self.by_id[document.id]

    def visible_to(self, key: Key) -> set[str]:
        """Every token that a reply to this key may hold."""
        seen = {part for place in self.places if key.reaches(*place) for part in place}
        for document in self.documents:
            if key.reaches(document.collection, document.namespace) and key.reads(document):
                seen.update(document.tokens, TOKEN.findall(document.uri))
        for job in self.jobs:
            if key.sees(job):
                seen |= self.job_tokens[job.id]
        if "admin" in key.roles and key.groups is None:
            seen.update(name for place, name in self.failed.items() if key.reaches(*place))
        if key.is_whole_admin:  # the list of keys names every place, also one that was dropped since
            seen |= self.names
        return seen

    async def _fail(self, rng: random.Random, collection: str, namespace: str) -> None:
        name, data = token(rng), {"collection": collection, "namespace": namespace}
        files = {"file": (f"{name}.pdf", b"%PDF-1.7 broken")}
        await self.http.post("/v1/documents", headers=self.admin.headers, data=data, files=files)
        self.failed[collection, namespace] = name

    async def _send_jobs(self, rng: random.Random) -> None:
        writers = [key for key in self.keys if key.may("write")]
        for _ in range(JOBS):
            sender = rng.choice(writers)
            collection, namespace = rng.choice([place for place in self.places if sender.reaches(*place)])
            sent = Sent.make(rng, collection, namespace)
            form = sent.form(background="true")
            job = (await self.http.post("/v1/documents", headers=sender.headers, **form)).json()
            while job["state"] not in {"succeeded", "failed"}:
                await asyncio.sleep(0.02)
                job = (await self.http.get(f"/v1/jobs/{job['id']}", headers=self.admin.headers)).json()
            self.jobs.append(Job(job["id"], collection, namespace, sent.groups, sender.id))
            self.job_tokens[job["id"]] = {collection, namespace, sent.token, *TOKEN.findall(sent.uri)}
            await self.learn(sent, job["receipt"]["document_ids"][0])
