"""One namespace of a Pinecone index: what is asked of it and written to it, a request a method.

Pinecone shows a write some time after it has taken it. A step that must see the writes before it waits until the index
says that it has got so far.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from indexers.base import Float32, IndexUnavailableError, Namespace, NamespaceNotFoundError
from indexers.pinecone_http import Json, MissingError, PineconeHttp, Reply
from indexers.pinecone_record import DIED, FORMAT, NEVER, Condition, remote_name

MAX_BATCH = 100  # vectors of one request, …
MAX_BATCH_BYTES = 2_000_000  # … and their size
PAGE = 100  # records of one fetch
_FRESH_S = 60.0  # how long a write may take to be seen

Record = Mapping[str, Any]


class Written:
    """The last write to each namespace that may not be seen yet, by log sequence number."""

    def __init__(self) -> None:
        self._pending: dict[str, int] = {}

    def note(self, name: str, lsn: int | None) -> None:
        if lsn is not None:
            self._pending[name] = max(lsn, self._pending.get(name, 0))

    def pending(self, name: str) -> int | None:
        return self._pending.get(name)

    def seen(self, name: str, lsn: int) -> None:
        """Everything up to that number is seen."""
        if self._pending.get(name, 0) <= lsn:
            self.forget(name)

    def forget(self, name: str) -> None:
        self._pending.pop(name, None)


class Space:
    """A namespace on the server."""

    def __init__(self, http: PineconeHttp, namespace: Namespace, written: Written) -> None:
        self._http = http
        self._namespace = namespace
        self._written = written
        self.name = remote_name(namespace)
        self._path = f"/namespaces/{quote(self.name, safe='')}"

    # --- whether it is there

    async def require(self) -> None:
        """Raises NamespaceNotFoundError."""
        try:
            await self._http.get(self._path)
        except MissingError as exc:
            raise self._missing() from exc

    async def make(self) -> None:
        try:
            await self.require()
        except NamespaceNotFoundError:
            await self._http.post("/namespaces", {"name": self.name})

    async def drop(self) -> None:
        self._written.forget(self.name)
        try:
            await self._http.delete(self._path)
        except MissingError:
            return

    # --- reading

    async def nearest(self, vector: Float32, wanted: Condition, limit: int, *, with_values: bool) -> list[Record]:
        """The nearest records, best first, by Pinecone's ids; with their values if asked for."""
        content = {
            "namespace": self.name,
            "vector": vector,
            "topK": limit,
            "filter": wanted,
            "includeMetadata": False,
            "includeValues": with_values,
        }
        reply = await self._post("/query", content)
        found: list[Record] = reply.content["matches"]
        return found

    async def records(self, wanted: Condition, after: str | None, limit: int) -> tuple[list[Record], str | None]:
        """A page of whole records, and where the next begins."""
        content: dict[str, object] = {"namespace": self.name, "filter": wanted, "limit": limit}
        if after is not None:
            content["paginationToken"] = after
        reply = await self._post("/vectors/fetch_by_metadata", content)
        following = (reply.content.get("pagination") or {}).get("next") or None
        return list(reply.content["vectors"].values()), following

    async def by_ids(self, ids: Sequence[str]) -> dict[str, Record]:
        """At most PAGE records by Pinecone's ids."""
        reply = await self._http.get("/vectors/fetch", namespace=self.name, ids=list(ids))
        found: dict[str, Record] = reply.content["vectors"]
        return found

    async def count(self, wanted: Condition) -> int:
        """How many records an update would reach; the update, which is not made, would change nothing."""
        content = {"namespace": self.name, "filter": wanted, "setMetadata": FORMAT, "dryRun": True}
        reply = await self._post("/vectors/update", content)
        return int(reply.content.get("matchedRecords") or 0)

    # --- writing

    async def upsert(self, records: Sequence[bytes]) -> None:
        """Store encoded records, at most MAX_BATCH of MAX_BATCH_BYTES."""
        head = b'{"namespace":"' + self.name.encode() + b'","vectors":['
        await self._write("/vectors/upsert", head + b",".join(records) + b"]}")

    async def end_all(self, wanted: Condition, commit: int) -> None:
        """Give the records that meet a filter died = commit."""
        content = {"namespace": self.name, "filter": wanted, "setMetadata": {DIED: commit}}
        await self._write("/vectors/update", content)

    async def revive_all(self, wanted: Condition) -> None:
        await self.end_all(wanted, NEVER)

    async def remove_all(self, wanted: Condition) -> None:
        await self._write("/vectors/delete", {"namespace": self.name, "filter": wanted})

    async def until_none(self, change: Callable[[Condition], Awaitable[None]], wanted: Condition) -> int:
        """Change what meets a filter until nothing does, since Pinecone changes so many records at once and no more;
        returns how many did."""
        found = left = await self.count(wanted)
        while left:
            await change(wanted)
            await self.settle()
            before, left = left, await self.count(wanted)
            if left >= before:
                raise IndexUnavailableError(f"Pinecone took a change to {self._namespace} and did not make it; retry")
        return found

    async def settle(self) -> None:
        """Wait until every write so far is seen. Raises IndexUnavailableError after a minute."""
        deadline, wait_s = asyncio.get_running_loop().time() + _FRESH_S, 0.02
        while (lsn := self._written.pending(self.name)) is not None:
            probe = [1.0] + [0.0] * (self._namespace.collection.dimension - 1)
            reply = await self._post("/query", {"namespace": self.name, "vector": probe, "topK": 1})
            if reply.indexed_lsn is None:
                self._written.seen(self.name, lsn)  # a server that does not number writes shows them at once
            else:
                self._written.seen(self.name, reply.indexed_lsn)
            if self._written.pending(self.name) is not None:
                if asyncio.get_running_loop().time() > deadline:
                    raise IndexUnavailableError(
                        f"Pinecone does not show a write to {self._namespace} after a minute; retry"
                    )
                await asyncio.sleep(wait_s)
                wait_s = min(1.0, 2 * wait_s)

    # --- inside

    async def _write(self, path: str, content: Json | bytes) -> None:
        reply = await self._post(path, content)
        self._written.note(self.name, reply.written_lsn)

    async def _post(self, path: str, content: Json | bytes) -> Reply:
        try:
            return await self._http.post(path, content)
        except MissingError as exc:
            raise self._missing() from exc

    def _missing(self) -> NamespaceNotFoundError:
        return NamespaceNotFoundError(f"no namespace {str(self._namespace)!r} in Pinecone; create it first")


def batches(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Encoded records in batches of at most MAX_BATCH and MAX_BATCH_BYTES."""
    batch: list[bytes] = []
    size = 0
    for record in records:
        if batch and (len(batch) == MAX_BATCH or size + len(record) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record) + 1
    if batch:
        yield batch
