"""Shared fixtures. Tests run on asyncio, the loop that the server runs on."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
