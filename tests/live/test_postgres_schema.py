"""PostgreSQL's schema: by migrations or made at once it is the same, also where several processes start together."""

import asyncio
from collections.abc import Callable

import pytest

from server.base import CatalogUnavailableError
from server.catalog import Catalog
from server.postgres import Postgres
from tests.live.postgres import PASSWORD, PostgresServer
from tests.test_schema import (  # noqa: F401 - run here with PostgreSQL
    test_migrations_lead_to_the_schema_of_a_fresh_catalog,
    test_the_head_is_the_newest_migration,
)


@pytest.fixture
def new_backend(postgres_server: PostgresServer) -> Callable[[], Postgres]:
    return lambda: Postgres(postgres_server.url(postgres_server.new_database()), PASSWORD)


async def test_processes_that_start_together_make_one_schema(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.new_database())
    opened = await asyncio.gather(*(Catalog.open(Postgres(url, PASSWORD)) for _ in range(5)))
    for catalog in opened:
        assert await catalog.collections() == []
        await catalog.close()


async def test_a_database_in_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    with pytest.raises(CatalogUnavailableError, match="encoded in LATIN1: make one with ENCODING 'UTF8'"):
        await Catalog.open(Postgres(postgres_server.url("latin"), PASSWORD))


async def test_texts_are_ordered_by_code_point(postgres_server: PostgresServer) -> None:
    backend = Postgres(postgres_server.url(postgres_server.new_database()), PASSWORD)
    catalog = await Catalog.open(backend)
    (database,) = postgres_server.execute("SELECT 'a' < 'B'")
    assert database == (True,), "this cluster sorts letters as a dictionary does"
    for name in ("a", "B", "é", "z", "-"):
        await catalog.write(
            lambda c, name=name: c.exec_driver_sql("INSERT INTO tombstones VALUES (%s, '', '', 0)", (name,))
        )
    rows = await catalog.read(lambda c: c.exec_driver_sql("SELECT document_id FROM tombstones ORDER BY 1").all())
    assert [row[0] for row in rows] == ["-", "B", "a", "z", "é"]
    await catalog.close()
