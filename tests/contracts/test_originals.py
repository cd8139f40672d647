"""The contract of stores of originals: an object is there whole or not at all, and what is removed is gone.

The live tests run these very functions on an S3 server.
"""

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from server.base import NotFoundError
from server.originals import OriginalStore
from server.originals_folder import FolderOriginals

DESK = "0123456789abcdef"
LARGE = bytes(range(256)) * 4099  # more than one piece, and no multiple of any


@pytest.fixture
def store(tmp_path: Path) -> OriginalStore:
    return FolderOriginals(tmp_path / "originals")


def name(number: int, folder: str = "ab", desk: str = DESK) -> str:
    return f"{desk}/{folder}/{folder}{number:062x}-{number:016x}"


async def read(store: OriginalStore, name: str) -> bytes:
    async with aclosing(store.read(name)) as pieces:
        return b"".join([piece async for piece in pieces])


async def listed(store: OriginalStore, folder: str) -> dict[str, int]:
    async with aclosing(store.list(folder)) as pages:
        return {one.name: one.size_bytes async for page in pages for one in page}


@pytest.mark.parametrize("data", [b"", b"a", b"\0\xff\r\n", LARGE], ids=["empty", "one", "binary", "large"])
async def test_what_was_put_is_read(store: OriginalStore, data: bytes) -> None:
    await store.put(name(1), data)
    assert await read(store, name(1)) == data


async def test_a_missing_object_is_said_to_be_missing(store: OriginalStore) -> None:
    with pytest.raises(NotFoundError, match="not in its store"):
        await read(store, name(1))


async def test_what_was_deleted_is_gone_and_deleting_it_again_is_no_error(store: OriginalStore) -> None:
    for number in range(3):
        await store.put(name(number), b"x")
    await store.delete([name(0), name(2), name(7)])
    await store.delete([name(0), name(2)])
    assert await listed(store, f"{DESK}/ab") == {name(1): 1}
    with pytest.raises(NotFoundError):
        await read(store, name(0))


async def test_a_listing_holds_a_folder_and_nothing_beside_it(store: OriginalStore) -> None:
    for folder in ("ab", "ac", "a0"):
        await store.put(name(1, folder), b"12345")
    await store.put(name(1, "ab", "fedcba9876543210"), b"another desk's")
    assert await listed(store, f"{DESK}/ab") == {name(1, "ab"): 5}
    assert await listed(store, f"{DESK}/ff") == {}


async def test_many_objects_are_listed_and_removed(store: OriginalStore) -> None:
    """More than a page of a listing has."""
    names = [name(number) for number in range(1100)]
    for at in range(0, len(names), 50):
        await asyncio.gather(*(store.put(one, b"x") for one in names[at : at + 50]))
    assert set(await listed(store, f"{DESK}/ab")) == set(names)
    await store.delete(names[:1000])
    assert set(await listed(store, f"{DESK}/ab")) == set(names[1000:])


async def test_a_listing_tells_when_an_object_was_stored(store: OriginalStore) -> None:
    before = time.time()
    await store.put(name(1), b"x")
    async with aclosing(store.list(f"{DESK}/ab")) as pages:
        (stored,) = [one async for page in pages for one in page]
    assert before - 5 < stored.stored_at < time.time() + 5


async def test_a_reader_may_leave_half_way(store: OriginalStore) -> None:
    await store.put(name(1), LARGE)
    async with aclosing(store.read(name(1))) as pieces:
        assert LARGE.startswith(await anext(pieces))
    assert await read(store, name(1)) == LARGE


async def test_many_at_once_do_not_disturb_each_other(store: OriginalStore) -> None:
    async def round_trip(number: int) -> None:
        data = bytes([number]) * (1000 * number)
        await store.put(name(number), data)
        assert await read(store, name(number)) == data
        await store.delete([name(number)])

    await asyncio.gather(*(round_trip(number) for number in range(40)))
    assert await listed(store, f"{DESK}/ab") == {}
