"""Namespaces in folders, opened once: what a call with a deadline began to open is open for the next one."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from indexers.base import CollectionSpec, IndexUnavailableError, Namespace
from indexers.open_folders import OpenFolders

NAMESPACE = Namespace(CollectionSpec("docs", 16), "default")


class Opened:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Gated:
    """Implements indexers.open_folders.Engine: it opens when it is let, and keeps what it opened."""

    def __init__(self) -> None:
        self.let, self.opened, self.is_damaged = threading.Event(), list[Opened](), False

    def make(self, path: Path, namespace: Namespace) -> None:
        path.joinpath("made").touch()

    def open(self, path: Path) -> Opened:
        assert self.let.wait(10)
        if self.is_damaged:
            raise IndexUnavailableError("its file is damaged")
        self.opened.append(Opened())
        return self.opened[-1]

    def name(self, path: Path) -> str:
        return NAMESPACE.name

    def map_errors(self, what: object) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
async def engine() -> Gated:
    return Gated()


@pytest.fixture
async def folders(tmp_path: Path, engine: Gated) -> AsyncIterator[OpenFolders[Opened]]:
    with ThreadPoolExecutor(2) as threads:
        folders = OpenFolders(tmp_path, 4, engine, threads)
        await folders.create(NAMESPACE)
        yield folders
        engine.let.set()
        await folders.close()
    assert all(opened.is_closed for opened in engine.opened)


async def use(folders: OpenFolders[Opened]) -> Opened:
    async with folders.use(NAMESPACE) as opened:
        assert not opened.is_closed
        return opened


async def given_up(folders: OpenFolders[Opened]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await use(folders)


async def test_a_caller_that_gives_up_leaves_it_opening(folders: OpenFolders[Opened], engine: Gated) -> None:
    await given_up(folders)
    await given_up(folders)
    engine.let.set()
    assert [await use(folders), await use(folders)] == engine.opened * 2
    assert len(engine.opened) == 1


async def test_closing_waits_for_what_opens(folders: OpenFolders[Opened], engine: Gated) -> None:
    await given_up(folders)
    closing = asyncio.create_task(folders.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    engine.let.set()
    await closing
    assert [opened.is_closed for opened in engine.opened] == [True]


async def test_what_could_not_be_opened_is_tried_again(folders: OpenFolders[Opened], engine: Gated) -> None:
    await given_up(folders)
    engine.is_damaged = True
    engine.let.set()
    for _ in range(2):
        with pytest.raises(IndexUnavailableError, match="damaged"):
            await use(folders)
    engine.is_damaged = False
    assert await use(folders) is engine.opened[-1]
