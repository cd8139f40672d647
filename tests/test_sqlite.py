"""SQLite's own: the file's mode, what is no database, and that no read of a search goes through a whole table."""

import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select

from server import catalog_documents, catalog_names
from server.base import CatalogUnavailableError
from server.catalog import Catalog
from tests.corpus import COLLECTION


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    await (await Catalog.open(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_broken_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(CatalogUnavailableError, match="not a database"):
        await Catalog.open(path)


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
