"""Where each namespace lives in a cluster: an index of its own up to a set number, above it a shared one.

The directory, a small index, says so; a namespace exists if it is there. In a shared index each namespace has a text
field of its own and one shard by routing, so that BM25 counts its own texts only: scores are as in an own index.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from indexers.base import IndexUnavailableError, Namespace, NamespaceNotFoundError
from indexers.opensearch_client import Client
from indexers.opensearch_schema import DIRECTORY, MAX_SHARING, TEMPLATE_VERSION, TEXT, Analyser, template, text_mapping

_PAGE = 1000
_FIRST = "-000001"  # the index behind a new alias; an operator may copy it into another and move the alias


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace's place: an alias that points at its index, and what tells its documents from others' there."""

    alias: str
    routing: str | None  # in a shared index the namespace's key; None in its own
    text_field: str
    analyser: Analyser


@dataclass(frozen=True, slots=True)
class Layout:
    """How indices are named and made. Up to `max_own` namespaces have an index of their own."""

    prefix: str = "refdesk"
    max_own: int = 100
    shards: int = 1
    replicas: int = 1

    @property
    def directory(self) -> str:
        return f"{self.prefix}-namespaces"


class Places:
    def __init__(self, client: Client, layout: Layout) -> None:
        self._client, self._layout = client, layout
        self._known: dict[str, Place] = {}
        self._is_set_up = False

    async def find(self, namespace: Namespace) -> Place:
        """Where the namespace is. Raises NamespaceNotFoundError."""
        place = await self._look_up(_key(namespace))
        if place is None:
            raise NamespaceNotFoundError(f"no namespace {str(namespace)!r} in the index; create it first")
        return place

    def forget(self, namespace: Namespace) -> None:
        """Look the namespace up anew the next time: it may have been dropped and made again elsewhere."""
        self._known.pop(_key(namespace), None)

    async def create(self, namespace: Namespace, analyser: Analyser) -> Place:
        """Give the namespace a place; if it has one, make what is missing of it."""
        await self._set_up()
        self.forget(namespace)
        key = _key(namespace)
        place = await self._look_up(key)
        if place is None:
            place = await self._choose(namespace, analyser)
            await self._make(place)
            await self._enter(key, namespace, place)
            return await self.find(namespace)  # as the directory has it: another process may have been faster
        await self._make(place)
        return place

    async def drop(self, namespace: Namespace) -> None:
        """Forget an emptied namespace; an index of its own goes with all that is in it."""
        key = _key(namespace)
        place = await self._look_up(key)
        if place is None:
            return
        if place.routing is None:
            for index in await self._indices(place.alias):
                await self._client.send("DELETE", f"/{index}", ignore=404)
        self._known.pop(key, None)  # the directory last: after a crash the namespace is still known, and dropped again
        await self._client.send(
            "DELETE", f"/{self._layout.directory}/_doc/{key}", ignore=404, parameters={"refresh": "true"}
        )

    async def names(self, collection: str) -> list[str]:
        """Names of a collection's namespaces whose indices are there, sorted."""
        aliases = await self._aliases()
        names: list[str] = []
        after: list[object] | None = None
        while True:
            body = {"size": _PAGE, "sort": ["key"], "query": {"term": {"collection": collection}}}
            page = {**body, "search_after": after} if after else body
            try:
                found = await self._client.search(f"/{self._layout.directory}/_search", page)
            except NamespaceNotFoundError:  # there is no directory yet
                return []
            names += [hit.source["name"] for hit in found if hit.source["alias"] in aliases]
            if len(found) < _PAGE:
                return sorted(names)
            after = list(found[-1].sort)

    # --- inside

    async def _look_up(self, key: str) -> Place | None:
        if key not in self._known:
            source = await self._client.source(self._layout.directory, key)
            if source is None:
                return None
            self._known[key] = _place(source)
        return self._known[key]

    async def _enter(self, key: str, namespace: Namespace, place: Place) -> None:
        entry = {
            "key": key,
            "collection": namespace.collection.name,
            "name": namespace.name,
            "alias": place.alias,
            "is_shared": place.routing is not None,
            "text_field": place.text_field,
            **asdict(place.analyser),
        }
        path = f"/{self._layout.directory}/_create/{key}"  # 409: another process was faster, and its place counts
        at_once = {"refresh": "true", "require_alias": "true"}
        await self._client.send("PUT", path, entry, ignore=409, parameters=at_once)

    async def _choose(self, namespace: Namespace, analyser: Analyser) -> Place:
        key, prefix = _key(namespace), self._layout.prefix
        own = await self._client.count(self._layout.directory, {"term": {"is_shared": False}})
        if own < self._layout.max_own:
            readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in namespace.collection.name.lower())
            return Place(f"{prefix}-own-{readable[:40]}-{key}", None, TEXT, analyser)
        number = 1
        while await self._sharing(f"{prefix}-shared-{number}") >= MAX_SHARING:
            number += 1
        return Place(f"{prefix}-shared-{number}", key, f"{TEXT}_{key}", analyser)

    async def _make(self, place: Place) -> None:
        """The namespace's index and text field, unless they are there."""
        await self._make_index(place.alias, self._layout.shards, {})
        field = {"properties": {place.text_field: text_mapping(place.analyser)}}
        await self._client.send("PUT", f"/{place.alias}/_mapping", field)

    async def _make_index(self, alias: str, shards: int, body: Mapping[str, object]) -> None:
        if await self._indices(alias):
            return
        index = f"{alias}{_FIRST}"
        settings = {"index": {"number_of_shards": shards, "number_of_replicas": self._layout.replicas}}
        made = {**body, "settings": settings, "aliases": {alias: {"is_write_index": True}}}
        answer = await self._client.send("PUT", f"/{index}", made, ignore=400)
        if "error" in answer and not await self._indices(alias):  # otherwise another process was faster
            reason = answer["error"].get("reason", answer["error"])
            raise IndexUnavailableError(f"OpenSearch does not make index {index!r} with the alias {alias!r}: {reason}")

    async def _set_up(self) -> None:
        """The template and the directory, unless they are there."""
        if self._is_set_up:
            return
        name = f"/_index_template/{self._layout.prefix}"
        answer = await self._client.send("GET", name, ignore=404)
        versions = [each["index_template"].get("version", 0) for each in answer.get("index_templates", ())]
        if versions != [TEMPLATE_VERSION]:
            await self._client.send("PUT", name, template(self._layout.prefix))
        await self._make_index(self._layout.directory, 1, DIRECTORY)
        self._is_set_up = True

    async def _indices(self, alias: str) -> list[str]:
        answer = await self._client.send("GET", f"/_alias/{alias}", ignore=404)
        return [] if "error" in answer else list(answer)

    async def _aliases(self) -> set[str]:
        answer = await self._client.send("GET", f"/{self._layout.prefix}-*/_alias")
        return {alias for index in answer.values() for alias in index["aliases"]}

    async def _sharing(self, alias: str) -> int:
        """How many namespaces a shared index was ever given: their fields stay."""
        answer = await self._client.send("GET", f"/{alias}/_mapping", ignore=404)
        if "error" in answer:
            return 0
        fields: list[str] = [name for index in answer.values() for name in index["mappings"].get("properties", ())]
        return sum(name.startswith(f"{TEXT}_") for name in fields)


def _key(namespace: Namespace) -> str:
    """A name for it that any index name, document key and routing takes: 120 bits of a hash."""
    both = f"{namespace.collection.name}\0{namespace.name}"
    return blake2b(both.encode(), digest_size=15).hexdigest()


def _place(source: Mapping[str, Any]) -> Place:
    analyser = Analyser(source["analysis"], source["language"])
    return Place(source["alias"], source["key"] if source["is_shared"] else None, source["text_field"], analyser)
