"""The tests of the catalog and of commits, those very functions, with PostgreSQL under them."""

import pytest

from server.postgres import Limits, Postgres
from tests.live.postgres import PASSWORD, PostgresServer
from tests.test_catalog import *  # noqa: F403 - whatever is tested there
from tests.test_catalog import OpenBackend
from tests.test_commit import *  # noqa: F403


@pytest.fixture
def backend(postgres_server: PostgresServer) -> OpenBackend:
    url = postgres_server.url(postgres_server.new_database())
    return lambda: Postgres(url, PASSWORD, Limits(readers=2, writers=2))
