"""The catalog on its own: what it keeps, what it shows at which commit, and how it refuses."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, update

from server import catalog_changes, catalog_documents, catalog_names, catalog_plan, schema, tables
from server.base import (
    CatalogUnavailableError,
    Changes,
    ConflictError,
    GoneError,
    InvalidRequestError,
    NamespaceState,
    NotFoundError,
    PreparedDocument,
    document_id,
)
from server.catalog import Catalog
from server.catalog_documents import Place
from server.catalog_keys import StoredKey
from server.database import Backend
from server.sqlite import Sqlite
from tests.corpus import COLLECTION, prepare

FINGERPRINT = COLLECTION.embedder_fingerprint
LONG = "".join(f"line {number} 𝔸 straße\n" for number in range(700))  # three blocks of text, astral letters in each


OpenBackend = Callable[[], Backend]


@pytest.fixture
def backend(tmp_path: Path) -> OpenBackend:
    """Opens a database, the same one each time. The live tests put PostgreSQL in its place."""
    return lambda: Sqlite(tmp_path / "catalog.sqlite")


@pytest.fixture
async def catalog(backend: OpenBackend) -> AsyncIterator[Catalog]:
    opened = await Catalog.open(backend())
    await opened.create_collection(COLLECTION)
    yield opened
    await opened.close()


@pytest.fixture
async def namespace(catalog: Catalog) -> NamespaceState:
    return await catalog.namespace("docs", "default", create=True)


async def commit(
    catalog: Catalog, namespace: NamespaceState, *upserts: PreparedDocument, deletes: Sequence[str] = ()
) -> int:
    """The catalog's half of a commit."""
    changes = Changes(upserts=upserts, deletes=deletes)
    plan = await catalog.read(catalog_plan.plan, namespace.id, changes, FINGERPRINT)
    await catalog.write(catalog_names.begin, namespace.id)
    await catalog.write(catalog_changes.apply, plan)
    return plan.number


def ids_of(namespace: NamespaceState, prepared: PreparedDocument) -> tuple[str, ...]:
    return catalog_plan.chunk_ids(namespace, prepared.id, prepared.version, len(prepared.chunks))


# --- opening -------------------------------------------------------------------------------------------------------


async def test_reopened_it_holds_the_same(backend: OpenBackend) -> None:
    first = await Catalog.open(backend())
    await first.create_collection(COLLECTION)
    await first.namespace("docs", "default", create=True)
    await first.close()
    second = await Catalog.open(backend())
    assert await second.collections() == [COLLECTION]
    assert [state.namespace.name for state in await second.namespaces("docs")] == ["default"]
    await second.close()
    with pytest.raises(CatalogUnavailableError, match="closed"):
        await second.collections()


async def test_a_newer_schema_is_refused_with_the_way_out(backend: OpenBackend) -> None:
    catalog = await Catalog.open(backend())
    await catalog.write(lambda c: c.execute(update(schema.version_table).values(version_num="99")))
    await catalog.close()
    with pytest.raises(ConflictError, match=r"schema version 99, and this refdesk reads up to \d+: use the release"):
        await Catalog.open(backend())


# --- collections and namespaces ------------------------------------------------------------------------------------


async def test_a_collection_keeps_its_settings(catalog: Catalog) -> None:
    await catalog.create_collection(COLLECTION)
    other = replace(COLLECTION, embedder_fingerprint="another")
    with pytest.raises(ConflictError, match="choose another name"):
        await catalog.create_collection(other)
    with pytest.raises(NotFoundError, match="'nowhere'"):
        await catalog.collection("nowhere")
    await catalog.rechunk_collection("docs", "words-2")
    assert (await catalog.collection("docs")).chunking == "words-2"


@pytest.mark.parametrize("name", ["", "*", " a", "a\0b", "x" * 257])
async def test_names_that_nobody_could_give_again_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="no name for a namespace"):
        await catalog.namespace("docs", name, create=True)
    for of_collection in (name, "a:b"):
        with pytest.raises(InvalidRequestError, match="no name for a collection"):
            await catalog.create_collection(replace(COLLECTION, spec=replace(COLLECTION.spec, name=of_collection)))
    assert (await catalog.namespace("docs", "Müller & Söhne:2026", create=True)).commit == 0


async def test_a_clock_that_goes_back_makes_no_commit_older(catalog: Catalog, namespace: NamespaceState) -> None:
    """Else a sweep would take what was replaced a moment ago for long replaced."""
    await commit(catalog, namespace, prepare("a.md", "The pump is red."))
    ahead = time.time() + 86_400.0
    await catalog.write(lambda c: c.execute(update(tables.namespaces).values(committed_at=ahead)))
    number = await commit(catalog, namespace, prepare("a.md", "The pump is blue."))
    assert await catalog.read(catalog_names.commit_at, namespace.id, time.time() + 3600.0) < number


async def test_namespaces_begin_at_commit_0(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="'tenant'"):
        await catalog.namespace("docs", "tenant")
    made = await catalog.namespace("docs", "tenant", create=True)
    assert made == await catalog.namespace("docs", "tenant", create=True)
    assert made.commit == 0
    await catalog.namespace("docs", "another", create=True)
    states = await catalog.snapshot("docs", ["tenant", "another"])
    assert states["tenant"] == made
    with pytest.raises(NotFoundError, match="'missing'"):
        await catalog.snapshot("docs", ["tenant", "missing"])
    with pytest.raises(ConflictError, match="still has 2 namespaces"):
        await catalog.drop_collection("docs")


async def test_a_namespace_is_never_taken_for_one_that_was_dropped(catalog: Catalog) -> None:
    """What was begun in it must not end in another one, whose number the database might give a second time."""
    numbers = set[int]()
    for name in ("one", "two", "one", "three"):
        made = await catalog.namespace("docs", name, create=True)
        numbers.add(made.id)
        await catalog.write(catalog_changes.begin_drop, made)
        with pytest.raises(ConflictError, match="being dropped"):
            await catalog.namespace("docs", name, create=True)
        assert (await catalog.read(catalog_names.droppable, "docs", name)).id == made.id
        await catalog.write(catalog_names.finish_drop, made.id)
        with pytest.raises(NotFoundError, match="has no namespace"):
            await catalog.read(catalog_names.droppable, "docs", name)
        with pytest.raises(NotFoundError, match="dropped meanwhile"):
            await catalog.record_failure(made.id, "a.pdf", "corrupt", "…")
    assert len(numbers) == 4


async def test_what_is_remembered_of_namespaces_ends_with_a_write(catalog: Catalog, namespace: NamespaceState) -> None:
    assert await catalog.snapshot("docs", ["default"]) == await catalog.snapshot("docs", ["default"])
    first = await commit(catalog, namespace, prepare("a.md", "The pump is red."))
    assert (await catalog.snapshot("docs", ["default"]))["default"].commit == first
    with pytest.raises(NotFoundError, match="'later'"):
        await catalog.snapshot("docs", ["default", "later"])
    await catalog.namespace("docs", "later", create=True)
    assert set(await catalog.snapshot("docs", ["default", "later"])) == {"default", "later"}
    await catalog.write(catalog_names.begin_drop, namespace.id)
    with pytest.raises(NotFoundError, match="'default'"):
        await catalog.snapshot("docs", ["default"])


async def test_searches_beside_commits_never_go_back(catalog: Catalog, namespace: NamespaceState) -> None:
    """A read that began before a commit must not be remembered after it."""
    seen: list[int] = []
    committed = [0]

    async def look() -> None:
        while committed[-1] < 20:
            least = committed[-1]
            number = (await catalog.snapshot("docs", ["default"]))["default"].commit
            assert number >= least
            seen.append(number)
            await asyncio.sleep(0)

    lookers = [asyncio.create_task(look()) for _ in range(4)]
    for number in range(1, 21):
        committed.append(await commit(catalog, namespace, prepare("a.md", f"The pump is number {number}.")))
    await asyncio.gather(*lookers)
    assert len(set(seen)) > 3


# --- documents -----------------------------------------------------------------------------------------------------


async def test_documents_by_page_uri_and_id(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = [
        prepare(f"f{n:02}.txt", f"text number {n}", metadata={"n": float(n), "tags": ["a", "b"]}, groups=("staff",))
        for n in range(25)
    ]
    await commit(catalog, namespace, *prepared)
    uris, after = [], None
    while True:
        page, after = await catalog.documents(namespace.id, after, 10)
        uris += [document.uri for document in page]
        if after is None:
            break
    assert uris == [p.document.uri for p in prepared]
    stored = await catalog.document(namespace.id, prepared[3].id)
    assert (stored.uri, stored.version, stored.chunking) == ("f03.txt", prepared[3].version, "words-1")
    assert (stored.metadata, stored.groups) == ({"n": 3.0, "tags": ["a", "b"]}, ("staff",))
    assert (stored.size_chars, stored.total_chunks, stored.born) == (13, 1, 1)
    found = await catalog.lookup(namespace.id, ["f03.txt", "f99.txt"])
    assert found == {"f03.txt": stored}
    assert await catalog.statistics(namespace.id) == (25, 25)
    assert await catalog.locate(stored.id) == Place("docs", "default")


async def test_a_document_to_be_ingested_again_is_not_looked_up(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = prepare("a.txt", "some text")
    await commit(catalog, namespace, prepared)
    assert await catalog.write(catalog_changes.forget_source, [prepared.id]) == [prepared.id]
    assert await catalog.write(catalog_changes.forget_source, [prepared.id]) == []
    assert await catalog.lookup(namespace.id, ["a.txt"]) == {}
    assert (await catalog.document(namespace.id, prepared.id)).source_sha256 == ""


async def test_a_text_that_comes_back_lives_twice(catalog: Catalog, namespace: NamespaceState) -> None:
    a, b = prepare("a.txt", "the first text"), prepare("a.txt", "the second text")
    for prepared in (a, b, a):
        await commit(catalog, namespace, prepared)
    seen = [
        [len(await catalog.chunks(namespace.id, ids_of(namespace, p), snapshot)) for p in (a, b)]
        for snapshot in range(5)
    ]
    assert seen == [[0, 0], [1, 0], [0, 1], [1, 0], [1, 0]]
    assert await catalog.text(a.id, b.version) == "the second text"
    assert (await catalog.document(namespace.id, a.id)).born == 3


async def test_deleted_documents_are_gone_until_they_return(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = prepare("a.txt", "to be deleted")
    await commit(catalog, namespace, prepared)
    await commit(catalog, namespace, deletes=[prepared.id])
    for ask in (
        catalog.document(namespace.id, prepared.id),
        catalog.text(prepared.id),
        catalog.text(prepared.id, prepared.version, 0, 3),
    ):
        with pytest.raises(GoneError, match="was deleted"):
            await ask
    assert await catalog.locate(prepared.id) == Place("docs", "default", is_deleted=True)
    assert await catalog.chunks(namespace.id, ids_of(namespace, prepared), 1) == {}
    never = document_id("docs", "default", "never.txt")
    for ask in (catalog.document(namespace.id, never), catalog.text(never), catalog.locate(never)):
        with pytest.raises(NotFoundError, match="no document"):
            await ask
    purges = await catalog.read(catalog_changes.unfinished_purges, namespace.id)
    assert purges == [(prepared.id, list(ids_of(namespace, prepared)))]
    await catalog.write(catalog_changes.finish_purges, namespace.id, [prepared.id])
    await commit(catalog, namespace, prepared)
    assert await catalog.text(prepared.id) == "to be deleted"


async def test_one_commit_does_not_say_two_things_of_a_document(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = prepare("a.txt", "text")
    with pytest.raises(InvalidRequestError, match="in two ways"):
        await commit(catalog, namespace, prepared, deletes=[prepared.id])


# --- chunks and text -----------------------------------------------------------------------------------------------


async def test_a_chunk_is_its_span_with_what_a_hit_needs(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = prepare("a.txt", LONG, metadata={"year": 2024.0}, groups=("x",), chunk_chars=1500)
    await commit(catalog, namespace, prepared)
    ids = ids_of(namespace, prepared)
    found = await catalog.chunks(namespace.id, ids, 1, token_bits_of=FINGERPRINT)
    assert sorted(found) == sorted(ids)
    for id_, chunk, embedding in zip(ids, prepared.chunks, prepared.embeddings, strict=True):
        stored = found[id_]
        assert stored.text == LONG[chunk.start : chunk.end]
        assert (stored.start, stored.end, stored.page, stored.index) == (
            chunk.start,
            chunk.end,
            chunk.page,
            chunk.index,
        )
        assert (stored.heading_path, stored.token_count) == (chunk.heading_path, 3)
        assert (stored.uri, stored.title, stored.document_id) == ("a.txt", "Title of a.txt", prepared.id)
        assert (stored.metadata, stored.groups, stored.version) == ({"year": 2024.0}, ("x",), prepared.version)
        assert stored.total_chunks == len(ids)
        assert stored.token_bits is not None
        np.testing.assert_array_equal(stored.token_bits, embedding.token_bits)
    for other in (None, "another model"):
        found = await catalog.chunks(namespace.id, ids[:1], 1, token_bits_of=other)
        assert found[ids[0]].token_bits is None
    elsewhere = await catalog.namespace("docs", "tenant", create=True)
    assert await catalog.chunks(elsewhere.id, ids, 1) == {}
    assert await catalog.chunks(namespace.id, [], 1) == {}


async def test_a_chunk_longer_than_two_blocks(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = prepare("a.txt", LONG, chunk_chars=11_000)
    await commit(catalog, namespace, prepared)
    found = await catalog.chunks(namespace.id, ids_of(namespace, prepared), 1)
    assert "".join(found[id_].text for id_ in ids_of(namespace, prepared)) == LONG


async def test_a_swept_commit_is_refused_not_half_shown(catalog: Catalog, namespace: NamespaceState) -> None:
    prepared = prepare("a.txt", "text")
    await commit(catalog, namespace, prepared)
    await commit(catalog, namespace, prepare("b.txt", "text"))
    await catalog.write(catalog_names.begin_sweep, namespace.id, 2)
    assert await catalog.oldest_commit(namespace.id) == 2
    with pytest.raises(GoneError, match="commit 1 can no longer be read"):
        await catalog.chunks(namespace.id, ids_of(namespace, prepared), 1)


async def test_any_span_of_any_text(catalog: Catalog, namespace: NamespaceState) -> None:
    numbers = itertools.count(1)

    def check_all(connection: Connection) -> None:
        @settings(max_examples=60, deadline=None)
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            unit = data.draw(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
            text = (unit * data.draw(st.sampled_from([1, 100, 4096, 8193])))[:9000]
            text = text[: data.draw(st.sampled_from([4095, 4096, 4097, 8192, 9000]))]
            start = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(start, len(text)))
            number = next(numbers)
            prepared = prepare(f"{number}.txt", text, chunk_chars=max(1000, end - start))
            plan = catalog_plan.plan(connection, namespace.id, Changes([prepared]), FINGERPRINT)
            catalog_names.begin(connection, namespace.id)
            catalog_changes.apply(connection, plan)
            assert catalog_documents.text(connection, prepared.id, None, start=start, end=end) == text[start:end]
            assert catalog_documents.text(connection, prepared.id, prepared.version, start=0, end=None) == text
            ids = ids_of(namespace, prepared)
            found = catalog_documents.chunks_by_id(connection, namespace.id, ids, snapshot=number, token_bits_of=None)
            assert [found[id_].text for id_ in ids] == [text[c.start : c.end] for c in prepared.chunks]
            for first, last in ((-1, 1), (0, len(text) + 1), (1, 0)):
                with pytest.raises(InvalidRequestError, match="no span"):
                    catalog_documents.text(connection, prepared.id, None, start=first, end=last)

        check()

    await catalog.write(check_all)


# --- keys and failures ---------------------------------------------------------------------------------------------


async def test_what_no_database_holds_is_the_callers_mistake(catalog: Catalog, namespace: NamespaceState) -> None:
    """A NUL, which PostgreSQL refuses and SQLite does not find, is no failure of the catalog."""
    for read in (
        catalog.namespace("docs", "nu\0l"),
        catalog.document(namespace.id, "doc_\0"),
        catalog.locate("doc_\0"),
    ):
        with pytest.raises((NotFoundError, InvalidRequestError)):
            await read
    assert (await catalog.namespace("docs", "default")).id == namespace.id


async def test_keys_are_found_by_their_hash(catalog: Catalog) -> None:
    key = StoredKey("key_1", "ab" * 32, "ci", frozenset({"read"}), ("docs:*",), frozenset({"staff"}), None, 1.0)
    admin = StoredKey("key_2", "cd" * 32, "admin", frozenset({"admin"}), None, None, 99.0, 2.0)
    await catalog.add_key(key)
    await catalog.add_key(admin)
    assert await catalog.find_key("ab" * 32) == key
    assert await catalog.find_key("ef" * 32) is None
    assert await catalog.keys() == [key, admin]
    with pytest.raises(ConflictError, match="exists already"):
        await catalog.add_key(replace(key, id="key_3"))
    await catalog.revoke_key("key_1")
    revoked = await catalog.find_key("ab" * 32)
    assert revoked is not None
    assert revoked.revoked_at == pytest.approx(time.time(), abs=60)
    with pytest.raises(NotFoundError, match="'key_9'"):
        await catalog.revoke_key("key_9")


async def test_failures_are_set_aside_and_cleared(catalog: Catalog, namespace: NamespaceState) -> None:
    for uri in ("b.pdf", "a.pdf", "c.pdf"):
        await catalog.record_failure(namespace.id, uri, "corrupt", "no trailer")
    await catalog.record_failure(namespace.id, "a.pdf", "encrypted", "needs a password")
    page, after = await catalog.failures(namespace.id, None, 2)
    assert ([(f.uri, f.reason) for f in page], after) == ([("a.pdf", "encrypted"), ("b.pdf", "corrupt")], "b.pdf")
    page, after = await catalog.failures(namespace.id, after, 2)
    assert ([f.uri for f in page], after) == (["c.pdf"], None)
    await catalog.clear_failures(namespace.id, ["a.pdf", "c.pdf", "d.pdf"])
    assert await catalog.failed(namespace.id, [f"{i}.pdf" for i in range(1500)] + ["a.pdf", "b.pdf"]) == {"b.pdf"}
    await catalog.clear_failures(namespace.id, ["b.pdf"])
    assert await catalog.failures(namespace.id) == ([], None)


# --- side by side --------------------------------------------------------------------------------------------------


async def test_readers_do_not_wait_for_a_write(catalog: Catalog, namespace: NamespaceState) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        catalog_names.begin(connection, namespace.id)
        catalog_names.advance(connection, namespace.id, 1)
        inside.set()
        leave.wait(10)

    writing = asyncio.create_task(catalog.write(slow))
    await asyncio.to_thread(inside.wait)
    async with asyncio.timeout(5):
        assert (await catalog.namespace("docs", "default")).commit == 0
    leave.set()
    await writing
    assert (await catalog.namespace("docs", "default")).commit == 1


async def test_a_failed_transaction_leaves_nothing(catalog: Catalog, namespace: NamespaceState) -> None:
    def fails(connection: Connection) -> None:
        catalog_names.begin(connection, namespace.id)
        catalog_names.advance(connection, namespace.id, 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await catalog.write(fails)
    assert (await catalog.namespace("docs", "default")).commit == 0
