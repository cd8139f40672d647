"""The kills of tests/test_kills.py, those very functions, with the catalog in PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.postgres import PASSWORD, PostgresServer
from tests.test_kills import *  # noqa: F403


@pytest.fixture(scope="module")
def make_folder(postgres_server: PostgresServer) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        url = postgres_server.url(postgres_server.new_database())
        (folder / "postgres").write_text(f"{url}\n{PASSWORD}\n")

    return make
