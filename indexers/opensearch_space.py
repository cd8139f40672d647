"""One namespace on an OpenSearch cluster: what is done to its documents, whichever index they share.

Deletes and updates go by query in two steps, a search in pages and bulk writes by key: item by item they can be
repeated, need no scripts, and no request lasts as long as the namespace is large.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import orjson

from indexers.base import Hit, IndexUnavailableError, Metadata, Point, StoredPoint, View
from indexers.opensearch_bulk import Operation, StaleMappingError
from indexers.opensearch_client import Client, Found
from indexers.opensearch_fields import NumericFields
from indexers.opensearch_payload import Encoder, decode, numeric_names, version_key
from indexers.opensearch_places import Place
from indexers.opensearch_query import Query, live, scored, stamped, under, visible
from indexers.opensearch_schema import BORN, DIED, ID, REST
from indexers.opensearch_unseen import Unseen

MAX_SLICE = 500  # points, or ids, of one call
_PAGE = 1000  # documents read at once
_MOST_HITS = 10_000  # of one search: OpenSearch's own limit
_KEPT = "2m"  # how long a point in time outlives its last page
_BY_ID = [{ID: "asc"}, {BORN: "asc"}]  # no two versions are equal in it
_EVERYTHING: Query = {"match_all": {}}


class Space:
    """A namespace's documents. One writer at a time; searches may run beside it."""

    def __init__(self, client: Client, fields: NumericFields, place: Place) -> None:
        self.place = place
        self._client = client
        self._fields = fields
        self._encoder = Encoder(place)
        self._unseen = Unseen()

    # --- searching

    async def search(self, question: str, view: View, top_k: int, *, over_shards: bool) -> list[Hit]:
        terms = await asyncio.to_thread(scored, self.place, question)
        if terms is None or top_k <= 0:
            return []
        await self._see(view.snapshot)
        body = {
            "query": visible(self.place, view, scored_by=terms),
            "sort": [{"_score": "desc"}, {ID: "asc"}],
            "size": top_k,
            "_source": False,
            "track_total_hits": False,
        }
        statistics = "dfs_query_then_fetch" if over_shards and self.place.routing is None else None
        found = await self._search(body, statistics)
        return [Hit(str(hit.sort[1]), float(str(hit.sort[0]))) for hit in found]

    async def fetch(self, ids: Sequence[str], view: View) -> list[Point]:
        await self._see(view.snapshot, ids)
        body = {"query": visible(self.place, view, under(ids)), "size": _MOST_HITS, "_source": [ID, REST, BORN, DIED]}
        return [decode(hit.source).point for hit in await self._search(body)]

    async def count(self, view: View | None) -> int:
        await self._see(None if view is None else view.snapshot)
        return await self._client.count(self.place.alias, visible(self.place, view), routing=self.place.routing)

    async def scan(self, view: View | None, after: str | None, limit: int) -> tuple[list[StoredPoint], str | None]:
        """A page out of one point in time; if that has expired meanwhile, out of a new one from the same place on."""
        if after is None:
            await self._see(None if view is None else view.snapshot)
            moment, position = await self._open(), None
        else:
            moment, position = json.loads(after)
        query = visible(self.place, view)
        source = [ID, REST, BORN, DIED]
        try:
            found = await self._page(moment, query, position, limit, source)
        except IndexUnavailableError:
            if after is None:
                raise
            moment = await self._open()
            found = await self._page(moment, query, position, limit, source)
        if len(found) < limit:
            await self._close(moment)
            return [decode(hit.source) for hit in found], None
        return [decode(hit.source) for hit in found], json.dumps([moment, list(found[-1].sort)])

    # --- writing

    async def put(self, points: Sequence[Point], commit: int) -> None:
        """Store checked points, and give their older live versions died = commit."""
        lines = await asyncio.to_thread(self._documents, points, commit)
        await self._store(points, lines, commit)
        await self.stamp([point.id for point in points], commit, born_before=commit)

    async def stamp(self, ids: Sequence[str], commit: int, born_before: int) -> None:
        """Give the live versions under these ids, born before that commit, died = commit."""
        await self._see(born_before - 1, ids)
        found = await self._live(ids, born_before, [ID])
        if found:
            self._unseen.note([hit.source[ID] for hit in found], commit)
            await self._client.bulk([self._update(hit, commit) for hit in found])

    async def patch(self, ids: Sequence[str], metadata: Metadata, groups: tuple[str, ...] | None, commit: int) -> None:
        """Copy the newest live version under each id with checked metadata merged in, and end the older one."""
        await self._see(commit, ids)
        found = await self._live(ids, commit + 1, True)
        newest = {str(hit.source[ID]): hit for hit in sorted(found, key=lambda hit: int(hit.source[BORN]))}
        points, lines = [], []
        for hit in newest.values():
            stored = decode(hit.source).point
            kept = stored.groups if groups is None else groups
            point = replace(stored, metadata={**stored.metadata, **metadata}, groups=kept)
            points.append(point)
            lines.append(self._index(point.id, commit, self._encoder.copy(point, hit.source, commit)))
        await self._store(points, lines, commit)
        await self.stamp(list(newest), commit, born_before=commit)

    async def undo(self, commit: int) -> None:
        await self.refresh()
        await self._each(stamped(BORN, gt=commit), self._remove)
        await self.refresh()  # so that what was removed is not found again, and revived
        await self._each(stamped(DIED, gt=commit), lambda hit: self._update(hit, None))
        await self.refresh()

    async def sweep(self, horizon: int) -> int:
        await self._see()
        removed = await self._each(stamped(DIED, lte=horizon), self._remove)
        await self.refresh()
        return removed

    async def purge(self, ids: Sequence[str]) -> None:
        await self._see()
        await self._each(under(ids), self._remove)
        await self.refresh()

    async def clear(self) -> None:
        """Remove every document of the namespace."""
        await self.refresh()
        await self._each(_EVERYTHING, self._remove)
        await self.refresh()

    async def refresh(self) -> None:
        """Let searches see all that was written; acknowledged writes are durable already."""
        before = self._unseen.taken()
        try:
            await self._client.refresh(self.place.alias)
        except BaseException:
            self._unseen.put_back(before)
            raise

    # --- inside: reading

    async def _see(self, until: int | None = None, ids: Sequence[str] | None = None) -> None:
        if self._unseen.hides(until, ids):
            await self.refresh()

    async def _search(self, body: Query, search_type: str | None = None) -> list[Found]:
        parameters = {"routing": self.place.routing, "search_type": search_type}
        return await self._client.search(f"/{self.place.alias}/_search", body, parameters)

    async def _live(self, ids: Sequence[str], born_before: int, source: Sequence[str] | bool) -> list[Found]:
        body = {"query": live(self.place, ids, born_before), "size": _MOST_HITS, "_source": source}
        return await self._search(body)

    async def _each(self, query: Query, change: Callable[[Found], Operation]) -> int:
        """Change every document that a query finds; returns how many."""
        changed = 0
        async for page in self._walk(visible(self.place, None, query)):
            await self._client.bulk([change(hit) for hit in page])
            changed += len(page)
        return changed

    async def _walk(self, query: Query) -> AsyncIterator[list[Found]]:
        moment = await self._open()
        position: Sequence[object] | None = None
        try:
            while found := await self._page(moment, query, position, _PAGE, False):
                yield found
                position = found[-1].sort
        finally:
            await self._close(moment)

    async def _page(
        self, moment: str, query: Query, after: Sequence[object] | None, limit: int, source: Sequence[str] | bool
    ) -> list[Found]:
        body = {
            "pit": {"id": moment, "keep_alive": _KEPT},
            "query": query,
            "sort": _BY_ID,
            "size": limit,
            "_source": source,
            "track_total_hits": False,
        }
        return await self._client.search("/_search", {**body, "search_after": after} if after else body)

    async def _open(self) -> str:
        path = f"/{self.place.alias}/_search/point_in_time"
        parameters = {"keep_alive": _KEPT, "routing": self.place.routing}
        answer = await self._client.send("POST", path, parameters=parameters)
        return str(answer["pit_id"])

    async def _close(self, moment: str) -> None:
        with suppress(IndexUnavailableError):  # it expires by itself
            await self._client.send("DELETE", "/_search/point_in_time", {"pit_id": [moment]}, ignore=404)

    # --- inside: writing

    def _documents(self, points: Sequence[Point], commit: int) -> list[Operation]:
        return [self._index(p.id, commit, self._encoder.encode(p, commit)) for p in points]

    async def _store(self, points: Sequence[Point], lines: Sequence[Operation], commit: int) -> None:
        if not lines:
            return
        names = {field: name for point in points for field, name in numeric_names(point.metadata).items()}
        await self._fields.require(self.place.alias, names)
        self._unseen.note([point.id for point in points], commit)
        try:
            await self._client.bulk(lines)
        except StaleMappingError:  # another process has made the index anew
            self._fields.forget(self.place.alias)
            await self._fields.require(self.place.alias, names)
            await self._client.bulk(lines)

    def _index(self, point_id: str, born: int, document: bytes) -> Operation:
        key = version_key(self.place, point_id, born)
        return Operation("index", self.place.alias, key, self.place.routing, document)

    def _update(self, hit: Found, died: int | None) -> Operation:
        document = orjson.dumps({DIED: died})
        return Operation("update", self.place.alias, hit.key, self.place.routing, document)

    def _remove(self, hit: Found) -> Operation:
        return Operation("delete", self.place.alias, hit.key, self.place.routing)
