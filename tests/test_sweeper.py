"""Sweeping: what was replaced longer ago than the retention goes, in every namespace; what is visible stays."""

import asyncio
from pathlib import Path

from server.base import SearchRequest
from server.commit import Writer
from server.ingest import Target
from server.sweeper import sweep_all, sweep_regularly
from tests.desks import open_desk, text_file


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
