"""Sweeping: what was replaced longer ago than the retention goes, in every namespace; what is visible stays."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from server.base import NamespaceState, SearchRequest
from server.commit import Writer
from server.ingest import Target
from server.sweeper import sweep_all, sweep_regularly
from tests.desks import open_desk, text_file


class Failing:
    """A writer over a disk that is full at first; what else it is asked for, the real one does."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.calls = writer, 0

    async def sweep(self, state: NamespaceState) -> int:
        self.calls += 1
        if self.calls == 1:
            raise OSError(28, "No space left on device")
        return await self.writer.sweep(state)


async def test_a_sweep_that_fails_is_logged_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.pipeline.ingest([text_file("pump.txt", "The pump is serviced yearly.")], Target("docs"))
        failing = Failing(desk.writer)
        sweeping = asyncio.create_task(sweep_regularly(desk.catalog, cast(Writer, failing), interval_s=0.01))
        async with asyncio.timeout(10):
            while failing.calls < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not sweeping.done()
        sweeping.cancel()
    assert [record.getMessage() for record in caplog.records] == ["a sweep failed; the next one is in 0 s"]


async def test_replaced_versions_go_and_the_present_ones_stay(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        for words in ("The pump is serviced monthly.", "The pump is serviced yearly."):
            for namespace in ("north", "south"):
                await desk.pipeline.ingest([text_file("pump.txt", words)], Target("docs", namespace))
        states = [await desk.catalog.namespace("docs", name) for name in ("north", "south")]
        assert [await desk.index.count(state.namespace, None) for state in states] == [2, 2]
        assert await sweep_all(desk.catalog, desk.writer) == 0, "the retention is a week"

        keeps_nothing = Writer(desk.catalog, desk.index, token_bits_of="fake", retention_s=0, grace_s=0)
        sweeping = asyncio.create_task(sweep_regularly(desk.catalog, keeps_nothing, interval_s=0.01))
        async with asyncio.timeout(10):
            while [await desk.index.count(state.namespace, None) for state in states] != [1, 1]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        sweeping.cancel()
        await keeps_nothing.close()
        found = await desk.pipeline.search(SearchRequest("pump serviced", "docs", ("north", "south")))
        assert {hit.chunk.text for hit in found.hits} == {"The pump is serviced yearly."}
