"""The catalog's schema: migrated from the first version it is the one of a fresh catalog, and nothing is lost."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, select, text

from indexers.memory import MemoryIndex
from server import schema, tables
from server.base import Changes
from server.catalog import Catalog
from server.commit import Writer
from server.database import Backend
from server.sqlite import Sqlite
from tests.corpus import COLLECTION, prepare

FIRST = Path(__file__).parent / "references" / "catalog-1.sql"  # as SQLite told of one that the first schema made
Shape = dict[str, object]


@pytest.fixture
def new_backend(tmp_path: Path) -> Callable[[], Backend]:
    """Opens another empty database each time. The live tests put PostgreSQL in its place."""
    names = iter("abcdef")
    return lambda: Sqlite(tmp_path / f"{next(names)}.sqlite")


def shape_of(connection: Connection) -> Shape:
    """Tables with columns, keys and indexes, in no order that counts."""
    found = inspect(connection)
    return {
        table: {
            "columns": {column["name"]: _column(column) for column in found.get_columns(table)},
            "primary key": found.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted(map(str, (unique["column_names"] for unique in found.get_unique_constraints(table)))),
            "indexes": {index["name"]: str(index["column_names"]) for index in found.get_indexes(table)},
            "references": sorted(str(sorted(key.items(), key=str)) for key in found.get_foreign_keys(table)),
        }
        for table in found.get_table_names()
    }


def _column(column: object) -> str:
    assert isinstance(column, dict)
    type_ = column["type"]
    return f"{type_!r} {getattr(type_, 'collation', None)} {column['nullable']} {column['default']}"


def run(backend: Backend, work: Callable[[Connection], Shape]) -> Shape:
    """In a transaction of an empty database."""
    engine = backend.open_engine(writes=True)
    with engine.connect() as connection, connection.begin():
        found = work(connection)
    engine.dispose()
    return found


def migrated(connection: Connection) -> Shape:
    schema.migrate(connection, None)
    return shape_of(connection)


def fresh(connection: Connection) -> Shape:
    schema.prepare(connection)
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    both = MetaData()
    for table in [*tables.metadata.sorted_tables, schema.version_table]:
        table.to_metadata(both)
    assert compare_metadata(context, both) == []
    return shape_of(connection)


def test_migrations_lead_to_the_schema_of_a_fresh_catalog(new_backend: Callable[[], Backend]) -> None:
    wanted = run(new_backend(), fresh)
    assert run(new_backend(), migrated) == wanted
    assert "namespaces" in wanted


def test_the_head_is_the_newest_migration(new_backend: Callable[[], Backend]) -> None:
    def version(connection: Connection) -> Shape:
        schema.migrate(connection, None)
        return {"version": connection.execute(select(schema.version_table.c.version_num)).scalar_one()}

    assert run(new_backend(), version) == {"version": schema.HEAD}


def test_the_first_migration_makes_the_first_schema(tmp_path: Path) -> None:
    def first(connection: Connection) -> Shape:
        schema.migrate(connection, None, "1")
        connection.execute(text("DROP TABLE alembic_version"))
        return shape_of(connection)

    with sqlite3.connect(tmp_path / "old.sqlite") as old:
        old.executescript(FIRST.read_text())
    old.close()
    wanted = run(Sqlite(tmp_path / "old.sqlite"), shape_of)
    assert run(Sqlite(tmp_path / "new.sqlite"), first) == wanted


async def test_a_catalog_of_the_first_version_is_migrated_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(FIRST.read_text())
        old.executescript(
            """
            INSERT INTO collections VALUES
                (1, 'docs', 32, 'cosine', 'english', 'fake', 'fake-fingerprint', 'words-1', 1.0);
            INSERT INTO namespaces VALUES (7, 1, 'default', 2, 3, 0, 0, 0, 5.0);  -- a crash left commit 3 pending
            INSERT INTO namespaces VALUES (8, 1, 'empty', 0, NULL, 0, 0, 0, 6.0);
            """
        )
        old.executemany("INSERT INTO commits VALUES (7, ?, ?)", [(1, 10.0), (2, 20.0)])
    old.close()
    catalog = await Catalog.open(path)
    assert await catalog.collections() == [COLLECTION]
    states = await catalog.snapshot("docs", ["default", "empty"])
    assert [(s.id, s.commit, s.committed_at, s.embedder) for s in states.values()] == [
        (7, 2, 20.0, "fake-fingerprint"),
        (8, 0, 6.0, "fake-fingerprint"),
    ]
    writer = Writer(catalog, MemoryIndex(), token_bits_of="", retention_s=0)
    assert [left.state.id for left in await writer.recover()] == [7]
    assert await writer.commit(states["default"], Changes(upserts=(prepare("a.txt", "text"),))) == 3
    await writer.close()
    await catalog.close()


def test_a_catalog_is_opened_without_alembic(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom server.catalog import Catalog\n"
        "async def main():\n    await (await Catalog.open(Path(sys.argv[1]))).close()\n"
        "asyncio.run(main())\nsys.exit('alembic' in sys.modules)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.sqlite")], check=False).returncode == 0
