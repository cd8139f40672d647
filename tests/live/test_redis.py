"""Redis between processes: what one ranked another finds, a key's rate holds over all, and nothing stale is served."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.redis import Redis
from server.redis_rates import RedisRates
from tests.desks import GUIDE, NOTES, QUESTION
from tests.live.app import App, app
from tests.live.postgres import PASSWORD as CATALOG_PASSWORD
from tests.live.postgres import PostgresServer
from tests.live.redis import PASSWORD, RedisServer


@pytest.fixture
def apps(postgres_server: PostgresServer, redis_server: RedisServer, tmp_path: Path) -> Iterator[list[App]]:
    """Two processes on one catalog and one Redis. Each has an index of its own: what the second knows of a document
    that the first took in, it knows from the catalog and from Redis."""
    redis_server.client().flushall()
    files = {"catalog_password_file": CATALOG_PASSWORD, "redis_password_file": PASSWORD}
    for name, password in files.items():
        (tmp_path / name).write_text(password)
    settings = {
        "catalog_url": postgres_server.url(postgres_server.new_database()),
        "redis_url": redis_server.url(),
        **{name: tmp_path / name for name in files},
    }
    with ExitStack() as started:
        yield [started.enter_context(app(tmp_path / name, settings)) for name in ("one", "two")]


def upload(to: App, name: str, text: str) -> None:
    with to.http() as http:
        assert http.post("/v1/documents", files={"file": (name, text.encode())}).status_code == 201


def test_what_one_process_ranked_the_other_finds(apps: list[App]) -> None:
    one, two = apps
    upload(one, "guide.md", GUIDE)
    first, second, third = one.search(QUESTION), two.search(QUESTION), two.search(QUESTION)
    assert first["hits"]
    assert [reply["cached"] for reply in (first, second, third)] == [False, True, True]
    assert second["hits"] == third["hits"] == first["hits"]
    assert one.metric('refdesk_cache_total{level="l2",outcome="miss"}') == 1
    assert two.metric('refdesk_cache_total{level="l2",outcome="hit"}') == 1
    assert two.metric('refdesk_cache_total{level="l1",outcome="hit"}') == 1
    upload(one, "notes.md", NOTES)
    after = one.search(QUESTION)
    assert not after["cached"], "a commit makes what was ranked before it unfindable"
    assert two.search(QUESTION)["hits"] == after["hits"]
    assert two.metric('refdesk_cache_total{level="l2",outcome="hit"}') == 2


def test_what_redis_holds_has_a_lifetime_and_no_text(apps: list[App], redis_server: RedisServer) -> None:
    one, _ = apps
    upload(one, "guide.md", GUIDE)
    one.search(QUESTION)
    client = redis_server.client()
    (key,) = client.keys("*")
    assert 3_500_000 < client.pttl(key) <= 3_600_000
    stored = client.get(key)
    assert "chk_" in stored
    assert not {"Kestrel", "pump", "guide.md"} & {word for word in GUIDE.split() if word in stored + key}


def test_a_rate_holds_over_all_processes(apps: list[App], redis_server: RedisServer) -> None:
    one, two = apps
    upload(one, "guide.md", GUIDE)
    with one.http() as http:
        key = http.post("/v1/keys", json={"name": "a reader", "requests_per_minute": 60}).json()
    assert key["requests_per_minute"] == 60
    with one.http(key["key"]) as at_one, two.http(key["key"]) as at_two:
        statuses = []
        for number in range(14):
            response = (at_one, at_two)[number % 2].get("/v1/models")
            statuses.append(response.status_code)
        assert statuses[:10] == [200] * 10
        assert 429 in statuses[10:13]
        refused = next(response for _ in range(5) if (response := at_two.get("/v1/models")).status_code == 429)
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert at_one.get("/health").status_code == 200
    (rate,) = redis_server.client().keys("refdesk:rate:*")
    assert 0 < redis_server.client().pttl(rate) <= 11_000


async def test_the_script_counts_as_one_process_does(redis_server: RedisServer) -> None:
    redis_server.client().flushall()
    redis = Redis(redis_server.url(), PASSWORD, timeout_s=5)
    rates = RedisRates(redis)
    assert [await rates.take("k", 60) for _ in range(10)] == [0.0] * 10
    assert 0.5 < await rates.take("k", 60) <= 1.0
    assert await rates.take("other", 0.5) == 0.0
    assert 118 < await rates.take("other", 0.5) <= 120
    assert redis.counts == {"ok": 13}
    await redis.close()
