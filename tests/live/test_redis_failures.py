"""Redis that ends, comes back, hangs, is slow, full or empty, under a desk at work: no request fails because of it,
few wait for it, and it is used again without a restart of the desk."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx2
import pytest

from server.auth import Claims
from server.redis import FAILURES, Redis
from tests.desks import GUIDE, new_key, open_desk, open_http, upload
from tests.live.proxy import Proxy
from tests.live.redis import PASSWORD, RedisServer, redis

TIMEOUT_S = 0.2
CLIENTS = 4


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may end."""
    with redis(tmp_path / "redis", "--maxmemory-policy", "noeviction") as server:
        yield server


@dataclass
class Load:
    """Clients whose key has a rate, who ask without a pause what was asked before and what was not."""

    http: httpx2.AsyncClient
    redis: Redis
    statuses: Counter[int] = field(default_factory=Counter)
    slow: int = 0  # requests that took as long as Redis may take
    is_over: bool = False
    numbers: Iterator[int] = field(default_factory=count)

    async def ask(self) -> None:
        while not self.is_over:
            number = next(self.numbers)
            began = time.perf_counter()
            question = f"question {number if number % 2 else number % 50}"
            response = await self.http.post("/v1/search", json={"question": question})
            self.statuses[response.status_code] += 1
            self.slow += time.perf_counter() - began >= TIMEOUT_S
            assert response.status_code == 200, response.text

    async def works(self, within_s: float = 20.0) -> None:
        """Wait until Redis has answered from now on, and is not left alone."""
        before = self.redis.counts["ok"]
        async with asyncio.timeout(within_s):
            while self.redis.counts["ok"] < before + 20:  # noqa: ASYNC110 - polling is all that a test needs
                await asyncio.sleep(0.02)

    async def goes_on_without(self, for_s: float = 2.0) -> None:
        """Searches are answered meanwhile, and few of them waited."""
        answered, slow = self.statuses[200], self.slow
        await asyncio.sleep(for_s)
        assert self.statuses[200] > answered + 20
        trials = 3  # after 1 s, and 2 s, and one more
        assert self.slow - slow <= CLIENTS * FAILURES + trials


@asynccontextmanager
async def under_load(folder: Path, url: str) -> AsyncIterator[Load]:
    (folder / "password").write_text(PASSWORD)
    settings = {
        "redis_url": url,
        "redis_password_file": folder / "password",
        "redis_timeout_ms": TIMEOUT_S * 1000,
        "cache_entries": 0,
    }
    async with open_desk(folder / "data", **settings) as desk:
        async with open_http(desk) as admin:
            await upload(admin, {"guide.md": GUIDE})
        assert desk.redis is not None
        key = await new_key(desk, Claims(requests_per_minute=60_000))
        async with open_http(desk, key) as http:
            load = Load(http, desk.redis)
            async with asyncio.TaskGroup() as clients:
                for _ in range(CLIENTS):
                    clients.create_task(load.ask())
                try:
                    await load.works()
                    yield load
                    await load.works()
                finally:
                    load.is_over = True
            assert set(load.statuses) == {200}
            assert desk.redis.counts["ok"] > 50


async def test_a_server_that_is_stopped_or_killed_and_started_under_load(
    own_server: RedisServer, tmp_path: Path
) -> None:
    async with under_load(tmp_path, own_server.url()) as load:
        for end in (own_server.server.stop, own_server.server.kill):
            await asyncio.to_thread(end)
            await load.goes_on_without()
            await asyncio.to_thread(own_server.server.start)
            await load.works()


async def test_a_server_that_hangs(own_server: RedisServer, tmp_path: Path) -> None:
    async with under_load(tmp_path, own_server.url()) as load:
        own_server.server.pause()
        try:
            await load.goes_on_without(4.0)
            assert load.redis.counts["error"] <= CLIENTS + FAILURES + 4
        finally:
            own_server.server.resume()
        await load.works()


async def test_a_server_that_is_full(own_server: RedisServer, tmp_path: Path) -> None:
    async with under_load(tmp_path, own_server.url()) as load:
        operator = own_server.client()
        operator.config_set("maxmemory", "1mb")
        errors = load.redis.counts["error"]
        await load.goes_on_without(1.0)
        assert load.redis.counts["error"] > errors, "it refuses to keep more"
        assert load.redis.counts["skipped"] == 0, "and what it has can still be had"
        operator.config_set("maxmemory", "0")
        await asyncio.sleep(0.2)
        errors = load.redis.counts["error"]
        await load.works()
        assert load.redis.counts["error"] == errors


async def test_a_way_that_is_slow_cut_or_closed(own_server: RedisServer, tmp_path: Path) -> None:
    with Proxy(own_server.port) as proxy:
        async with under_load(tmp_path, own_server.url(proxy.port)) as load:
            proxy.delay_s = 2 * TIMEOUT_S
            await load.goes_on_without(4.0)
            assert load.redis.counts["skipped"]
            proxy.delay_s = 0.0
            await load.works()
            for _ in range(5):
                proxy.cut()
                await load.works()
            proxy.refuses = True
            proxy.cut()
            await load.goes_on_without()
            proxy.refuses = False
            await load.works()


async def test_a_desk_that_starts_before_redis_does(own_server: RedisServer, tmp_path: Path) -> None:
    own_server.server.stop()
    (tmp_path / "password").write_text(PASSWORD)
    settings = {"redis_url": own_server.url(), "redis_password_file": tmp_path / "password"}
    async with open_desk(tmp_path / "data", **settings) as desk, open_http(desk) as http:
        await upload(http, {"guide.md": GUIDE})
        assert (await http.post("/v1/search", json={"question": "pump"})).status_code == 200
        own_server.server.start()
        assert desk.redis is not None
        async with asyncio.timeout(20):
            for number in count():
                assert (await http.post("/v1/search", json={"question": f"pump {number}"})).status_code == 200
                if desk.redis.counts["ok"]:
                    break
                await asyncio.sleep(0.1)


async def test_a_wrong_password_costs_speed_alone(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("another")
    settings = {"redis_url": redis_server.url(), "redis_password_file": tmp_path / "password"}
    async with open_desk(tmp_path / "data", **settings) as desk, open_http(desk) as http:
        await upload(http, {"guide.md": GUIDE})
        for number in range(10):
            assert (await http.post("/v1/search", json={"question": f"pump {number}"})).status_code == 200
        assert desk.redis is not None
        assert desk.redis.counts["error"] >= FAILURES
        assert desk.redis.counts["skipped"]
        assert desk.redis.counts["ok"] == 0
