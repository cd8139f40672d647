"""One desk a file of tests: the two documents for everybody, and one that only the group hr may read."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from server.build import Desk
from tests.desks import GUIDE, NOTES, open_desk, open_http, upload


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path_factory.mktemp("desk")) as desk:
        async with open_http(desk) as http:
            await upload(http, {"guide.md": GUIDE, "notes.md": NOTES})
            await upload(http, {"salaries.md": "# Salaries\n\nThe chief earns most.\n"}, namespace="hr", groups="hr")
        yield desk


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_http(desk) as http:
        yield http
