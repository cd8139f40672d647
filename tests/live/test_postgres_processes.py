"""Several processes on one catalog, each with sessions of its own: here as catalogs and writers beside each other."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from indexers.base import View
from indexers.memory import MemoryIndex
from server import catalog_changes, catalog_names, catalog_plan
from server.auth import Keys
from server.base import CatalogUnavailableError, Changes, ConflictError, NotFoundError, PreparedDocument, ServerError
from server.catalog import Catalog
from server.commit import Writer
from server.postgres import Limits, Postgres
from tests.corpus import COLLECTION, prepare
from tests.live.postgres import PASSWORD, PostgresServer

FINGERPRINT = COLLECTION.embedder_fingerprint
A1 = prepare("a.txt", "the first text of a, cut into more chunks than one, as long as it is")
A2 = prepare("a.txt", "the second text of a, which is another and of another length")
B1 = prepare("b.txt", "a text of b")


class Shared:
    """A database and an index that any number of processes work on."""

    def __init__(self, server: PostgresServer, opened: AsyncExitStack, takeover_s: float) -> None:
        self.server, self.opened, self.takeover_s = server, opened, takeover_s
        self.database = server.new_database()
        self.index = MemoryIndex()

    async def process(self) -> tuple[Catalog, Writer]:
        limits = Limits(readers=2, writers=2, takeover_s=self.takeover_s)
        catalog = await Catalog.open(Postgres(self.server.url(self.database), PASSWORD, limits))
        self.opened.push_async_callback(catalog.close)
        writer = Writer(catalog, self.index, token_bits_of=FINGERPRINT, retention_s=3600, grace_s=0)
        self.opened.push_async_callback(writer.close)
        await catalog.create_collection(COLLECTION)
        return catalog, writer

    def end_sessions(self, condition: str = "true") -> int:
        """Break connections, as a network or an administrator would; returns how many."""
        ended = (
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}' AND {condition}"
        )
        return len(self.server.execute(ended))

    def end_lease(self) -> int:
        return self.end_sessions("pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')")

    async def visible(self, catalog: Catalog, name: str = "default") -> dict[str, str]:
        """uri → text of the present commit, the index held against the catalog."""
        state = await catalog.namespace("docs", name)
        hits, _ = await self.index.scan(state.namespace, View(state.commit), None, 100_000)
        chunks = await catalog.chunks(state.id, [hit.point.id for hit in hits], state.commit)
        assert len(chunks) == len(hits), "the index shows what the catalog does not"
        texts: dict[str, str] = {}
        for chunk in sorted(chunks.values(), key=lambda c: (c.uri, c.index)):
            texts[chunk.uri] = texts.get(chunk.uri, "") + chunk.text
        documents, count = await catalog.statistics(state.id)
        assert (documents, count) == (len(texts), len(chunks)), "the catalog has what the index does not show"
        return texts


@asynccontextmanager
async def shared(server: PostgresServer, takeover_s: float = 0.0) -> AsyncIterator[Shared]:
    async with AsyncExitStack() as opened:
        yield Shared(server, opened, takeover_s)


def texts(*prepared: PreparedDocument) -> dict[str, str]:
    return {each.document.uri: each.document.text for each in prepared}


# --- leases --------------------------------------------------------------------------------------------------------


async def test_writers_of_several_processes_take_turns(postgres_server: PostgresServer) -> None:
    async with shared(postgres_server) as bench:
        processes = [await bench.process() for _ in range(4)]
        state = await processes[0][0].namespace("docs", "default", create=True)
        documents = [prepare(f"{n}.txt", f"text {n}") for n in range(24)]
        commits = [processes[n % 4][1].commit(state, Changes([each])) for n, each in enumerate(documents)]
        assert sorted(await asyncio.gather(*commits)) == list(range(1, 25))
        for catalog, _ in processes:
            assert await bench.visible(catalog) == texts(*documents)


async def test_a_commit_that_is_being_written_is_not_undone_by_a_process_that_starts(
    postgres_server: PostgresServer,
) -> None:
    async with shared(postgres_server) as bench:
        (first, writer), (_, starting) = await bench.process(), await bench.process()
        state = await first.namespace("docs", "default", create=True)
        async with writer.lease(state.id):
            await first.write(catalog_names.begin, state.id, "somebody alive")
            assert await starting.recover() == []
            waiting = asyncio.create_task(starting.commit(state, Changes([B1])))
            await asyncio.sleep(0.3)
            assert not waiting.done()
        assert await waiting == 1
        assert await bench.visible(first) == texts(B1)


async def test_a_process_that_died_leaves_its_lease_and_is_given_time(postgres_server: PostgresServer) -> None:
    async with shared(postgres_server, takeover_s=0.7) as bench:
        (first, writer), (second, other) = await bench.process(), await bench.process()
        state = await first.namespace("docs", "default", create=True)
        await writer.commit(state, Changes([A1]))
        plan = await first.read(catalog_plan.plan, state.id, Changes([A2]), FINGERPRINT)
        await first.write(catalog_names.begin, state.id, "who died")
        points, _ = await bench.index.scan(state.namespace, View(1), None, 100)
        await bench.index.put(state.namespace, [stored.point for stored in points], plan.number)
        began = asyncio.get_running_loop().time()
        assert await other.commit(state, Changes([B1])) == 2
        assert asyncio.get_running_loop().time() - began >= 0.7
        assert await bench.visible(second) == texts(A1, B1)
        with pytest.raises(ConflictError, match="commit 2 was taken over by another process"):
            await first.write(catalog_changes.apply, plan, "who died")
        assert await bench.visible(first) == texts(A1, B1)


async def test_a_lost_lease_ends_the_commit_that_rested_on_it(postgres_server: PostgresServer) -> None:
    async with shared(postgres_server) as bench:
        (first, writer), (second, other) = await bench.process(), await bench.process()
        state = await first.namespace("docs", "default", create=True)
        async with writer.lease(state.id) as lease:
            await lease.check()
            assert bench.end_lease() == 1
            assert await other.commit(state, Changes([A1])) == 1
            with pytest.raises(CatalogUnavailableError, match="lease of the namespace was lost"):
                await lease.check()
        assert await writer.commit(state, Changes([B1])) == 2
        assert await bench.visible(second) == texts(A1, B1)


async def test_a_cancelled_waiter_leaves_no_lock_behind(postgres_server: PostgresServer) -> None:
    async with shared(postgres_server) as bench:
        (first, writer), (_, other) = await bench.process(), await bench.process()
        state = await first.namespace("docs", "default", create=True)

        async def hold() -> None:
            async with other.lease(state.id):
                await asyncio.sleep(0)

        for _ in range(60):
            holding = asyncio.create_task(hold())
            await asyncio.sleep(random.uniform(0, 0.004))
            holding.cancel()
            await asyncio.wait([holding])
        async with asyncio.timeout(5), writer.lease(state.id):
            pass


async def test_commits_under_connections_that_break_are_whole_or_not_there(postgres_server: PostgresServer) -> None:
    """Every session is ended again and again while four processes write: what was said to be committed is there."""
    async with shared(postgres_server) as bench:
        processes = [await bench.process() for _ in range(4)]
        states = [await processes[0][0].namespace("docs", name, create=True) for name in ("default", "tenant")]
        written: dict[str, dict[str, str]] = {"default": {}, "tenant": {}}
        failed: set[str] = set()
        is_over = False

        async def write(number: int) -> None:
            for turn in range(12):
                state = states[(number + turn) % 2]
                name = state.namespace.name
                each = prepare(f"{number}-{turn}.txt", f"text {turn} of process {number}, long enough", namespace=name)
                try:
                    await processes[number][1].commit(state, Changes([each]))
                    written[name] |= texts(each)
                except ServerError:
                    failed.add(each.document.uri)

        async def disturb() -> None:
            while not is_over:
                await asyncio.sleep(random.uniform(0.3, 1.5))
                await asyncio.to_thread(bench.end_sessions)

        disturbing = asyncio.create_task(disturb())
        await asyncio.gather(*map(write, range(4)))
        is_over = True
        await disturbing
        catalog, writer = await bench.process()
        await writer.recover()
        for state in states:
            name = state.namespace.name
            seen = await bench.visible(catalog, name)
            assert written[name].items() <= seen.items()
            assert set(seen) - set(written[name]) <= failed  # one whose COMMIT was not answered may have been done
        assert any(written.values())


# --- what is made once ---------------------------------------------------------------------------------------------


async def test_processes_that_make_the_same_thing_make_one(postgres_server: PostgresServer) -> None:
    async with shared(postgres_server) as bench:
        catalogs = [(await bench.process())[0] for _ in range(4)]
        keys = await asyncio.gather(*(Keys(catalog).first_admin() for catalog in catalogs))
        assert sum(key is not None for key in keys) == 1
        made = await asyncio.gather(*(c.namespace("docs", "default", create=True) for c in catalogs * 3))
        assert len({state.id for state in made}) == 1
        other = replace(COLLECTION, spec=replace(COLLECTION.spec, name="other"))
        contrary = replace(other, embedder_fingerprint="another")
        outcomes = await asyncio.gather(
            *(catalog.create_collection(each) for catalog in catalogs for each in (other, contrary)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 4
        assert sum(outcome is None for outcome in outcomes) == 4
        failing = [c.record_failure(made[0].id, "a.pdf", "corrupt", f"seen by {n}") for n, c in enumerate(catalogs * 3)]
        await asyncio.gather(*failing)
        page, _ = await catalogs[0].failures(made[0].id)
        assert [failure.uri for failure in page] == ["a.pdf"]


async def test_a_collection_is_not_dropped_under_a_namespace_that_is_being_made(
    postgres_server: PostgresServer,
) -> None:
    async with shared(postgres_server) as bench:
        (one, _), (two, _) = await bench.process(), await bench.process()
        for _ in range(25):
            await one.create_collection(COLLECTION)
            dropped, made = await asyncio.gather(
                one.drop_collection("docs"), two.namespace("docs", "default", create=True), return_exceptions=True
            )
            if isinstance(made, NotFoundError):
                assert dropped is None
            else:
                assert isinstance(dropped, ConflictError), (dropped, made)
                assert (await two.namespace("docs", "default")) == made
                await two.write(catalog_names.finish_drop, made.id)
                await two.drop_collection("docs")


async def test_a_search_reads_its_namespaces_at_one_instant(postgres_server: PostgresServer) -> None:
    """Two namespaces whose commits advance in one transaction are never seen apart."""
    async with shared(postgres_server) as bench:
        (one, _), (two, _) = await bench.process(), await bench.process()
        states = [await one.namespace("docs", name, create=True) for name in ("a", "b")]

        def both(connection: object, number: int) -> None:
            for state in states:
                catalog_names.begin(connection, state.id)
                catalog_names.advance(connection, state.id, number)

        async def advance() -> None:
            for number in range(1, 60):
                await one.write(both, number)

        advancing = asyncio.create_task(advance())
        seen = set()
        while not advancing.done():
            found = await two.snapshot("docs", ["a", "b"])
            assert found["a"].commit == found["b"].commit
            seen.add(found["a"].commit)
        await advancing
        assert len(seen) > 3
