"""Generated requests by generated keys (eval/tenants.py): no reply shows a key too much, and a leak would be seen."""

from pathlib import Path

import pytest

from eval.tenants import check, routes
from tests.desks import open_desk


async def test_no_reply_shows_a_key_more_than_it_may_see(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        report = await check(desk, 1500, seed=1)
        assert report.wrong == []
        assert report.asked.keys() >= routes(desk), "a route that no case asks: add one to eval/tenants.py"
        assert 0.3 < report.refused.total() / report.asked.total() < 0.7


@pytest.mark.parametrize(
    "checked",
    [
        "server.access.may_reach",  # namespaces
        "server.access.is_readable",  # groups, of a document
        "server.routes.jobs.is_readable",  # groups, of a job
        "server.pipeline.is_readable",  # groups, of a hit of an older commit, before they changed
    ],
)
async def test_a_desk_that_leaks_is_found_out(checked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, lambda *_: True)
    async with open_desk(tmp_path) as desk:
        assert (await check(desk, 3000, seed=2, stop_at=1)).wrong
