"""SQLite's own: the file's mode, what is no database, and that no read of a search goes through a whole table."""

import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select

from server import catalog_changes, catalog_documents, catalog_names, catalog_plan
from server.base import CatalogUnavailableError, Changes
from server.by_ids import ByIds
from server.catalog import Catalog
from tests.corpus import COLLECTION, prepare


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    await (await Catalog.open(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_broken_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(CatalogUnavailableError, match="not a database"):
        await Catalog.open(path)


FINGERPRINT = "f" * 64  # of the embedding model
SEARCHES = {"namespace_key": 1, "snapshot": 1, "limit": 1, "after": "a", "id": "a", "ids": ["a"], "uris": ["a"]}


@pytest.mark.parametrize(
    "statement",
    [
        catalog_documents._CHUNKS,
        catalog_documents._TOKEN_BITS,
        catalog_documents._PAGE,
        catalog_documents._BY_ID,
        catalog_documents._BY_URIS,
        catalog_names._SOME,
    ],
)
async def test_no_read_of_a_search_or_a_lookup_scans_a_table(tmp_path: Path, statement: Select[Any]) -> None:
    catalog = await Catalog.open(tmp_path / "catalog.sqlite")
    await catalog.create_collection(COLLECTION)
    await catalog.namespace("docs", "default", create=True)
    values = {**SEARCHES, "fingerprint": "f", "collection": "docs", "names": ["default"]}
    bound = statement.params({name: values[name] for name in statement.compile().params if name in values})

    def plan(connection: Connection) -> list[str]:
        sql = str(bound.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")]

    steps = await catalog.read(plan)
    assert steps
    assert [step for step in steps if step.startswith("SCAN")] == []
    await catalog.close()


@pytest.mark.parametrize("read", [catalog_documents._CHUNKS_BY_ID, catalog_documents._TOKEN_BITS_BY_ID])
async def test_what_the_driver_reads_is_what_the_toolkit_reads(tmp_path: Path, read: ByIds) -> None:
    catalog = await Catalog.open(tmp_path / "catalog.sqlite")
    await catalog.create_collection(COLLECTION)
    namespace = await catalog.namespace("docs", "default", create=True)
    prepared = prepare("a.txt", "words and more words " * 800, chunk_chars=3000)  # one of them in two blocks
    known = {"namespace_key": namespace.id, "snapshot": 1, "fingerprint": FINGERPRINT}
    wanted = {name: known[name] for name in read.statement.compile().params if name in known}

    def compare(connection: Connection) -> None:
        catalog_names.begin(connection, namespace.id)
        catalog_changes.apply(connection, catalog_plan.plan(connection, namespace.id, Changes([prepared]), FINGERPRINT))
        ids = catalog_plan.chunk_ids(namespace, prepared.id, prepared.version, len(prepared.chunks))
        for some in ((), ids[:1], ids[1:2], ("unknown", *ids), ids[::-1]):
            rows = read.rows(connection, some, **wanted)
            assert sorted(rows) == sorted(map(tuple, connection.execute(read.statement, {"ids": some, **wanted})))
            assert len({row[0] for row in rows}) == len(set(some) & set(ids))

    await catalog.write(compare)
    await catalog.close()


async def test_a_failing_read_of_a_search_is_named(tmp_path: Path) -> None:
    catalog = await Catalog.open(tmp_path / "catalog.sqlite")
    await catalog.write(lambda connection: connection.exec_driver_sql("DROP TABLE text_blocks"))
    with pytest.raises(CatalogUnavailableError, match="no such table: text_blocks"):
        await catalog.chunks(1, ["a"], 1)
    await catalog.close()
