"""Jobs of several processes on one catalog and one Redis: shared out, taken again from the dead, lost with no queue.

Each process has an index of its own here, so that each job has a namespace of its own.
"""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.redis_bell import QUEUE
from tests.live.app import App, app, new_app
from tests.live.postgres import PASSWORD as CATALOG_PASSWORD
from tests.live.postgres import PostgresServer
from tests.live.redis import PASSWORD, RedisServer, redis

Settings = dict[str, object]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may end."""
    with redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def settings(postgres_server: PostgresServer, own_redis: RedisServer, tmp_path: Path) -> Settings:
    files = {"catalog_password_file": CATALOG_PASSWORD, "redis_password_file": PASSWORD}
    for name, password in files.items():
        (tmp_path / name).write_text(password)
    return {
        "catalog_url": postgres_server.url(postgres_server.new_database()),
        "redis_url": own_redis.url(),
        "redis_timeout_ms": 1000,  # the machine may be busy
        **{name: tmp_path / name for name in files},
    }


@contextmanager
def two(folder: Path, settings: Settings) -> Iterator[tuple[App, App]]:
    with app(folder / "one", settings) as one, app(folder / "two", settings) as other:
        yield one, other


def texts(number: int, count: int = 20) -> dict[str, str]:
    return {f"{number}-{n}.txt": f"text {n} of job {number} " * 40 for n in range(count)}


def all_succeed(at: App, ids: list[str]) -> None:
    for id_ in ids:
        job = at.ended(id_)
        assert (job["state"], job["receipt"]["added"]) == ("succeeded", 20), job


def test_two_processes_share_the_jobs_that_one_was_sent(settings: Settings, tmp_path: Path) -> None:
    with two(tmp_path, settings) as (one, other):
        ids = [one.send(texts(n), namespace=f"n{n}") for n in range(10)]
        all_succeed(other, ids)
        done = [each.metric('refdesk_jobs_total{state="succeeded"}') for each in (one, other)]
        assert sum(done) == 10
        assert min(done) >= 1
        for each in (one, other):
            assert each.metric('refdesk_redis_commands_total{outcome="error"}') == 0


def test_a_job_whose_process_died_is_taken_by_another(settings: Settings, tmp_path: Path) -> None:
    dying = new_app(tmp_path / "dying", {**settings, "fault": "commit.begun"})
    dying.server.start()
    id_ = dying.send(texts(1))
    dying.dies()
    with app(tmp_path / "other", settings) as other:
        job = other.ended(id_)
    assert (job["state"], job["attempts"], job["receipt"]["added"]) == ("succeeded", 2, 20)


def test_a_redis_that_is_restarted_empty_loses_no_job(
    settings: Settings, own_redis: RedisServer, tmp_path: Path
) -> None:
    with two(tmp_path, settings) as (one, other):
        ids = []
        for n in range(12):
            ids.append(one.send(texts(n), namespace=f"n{n}"))
            if n in (2, 6):
                own_redis.server.kill()
                own_redis.server.start()
                assert own_redis.client().llen(QUEUE) <= 1
        all_succeed(other, ids)


def test_without_redis_jobs_go_on(settings: Settings, own_redis: RedisServer, tmp_path: Path) -> None:
    with two(tmp_path, settings) as (one, other):
        own_redis.server.stop()
        ids = [(one, other)[n % 2].send(texts(n), namespace=f"n{n}") for n in range(6)]
        all_succeed(one, ids)
        own_redis.server.start()
        own_redis.server.pause()
        ids = [one.send(texts(n), namespace=f"n{n}") for n in range(6, 9)]
        all_succeed(one, ids)
        own_redis.server.resume()
        time.sleep(1)
        all_succeed(other, [one.send(texts(9), namespace="n9")])


def test_killed_again_and_again_a_job_ends_once(tmp_path: Path) -> None:
    """One process on its own folder, killed at random instants of a job until one run is left alone."""
    embedded: Settings = {"commit_documents": 10}
    first = new_app(tmp_path, embedded)
    first.server.start()
    id_ = first.send(texts(1, 200))
    time.sleep(random.uniform(0, 1))
    first.server.kill()
    for _ in range(3):
        again = new_app(tmp_path, embedded)
        again.server.start()
        time.sleep(random.uniform(0, 1))
        again.server.kill()
    with app(tmp_path, embedded) as last:
        job = last.ended(id_)
        with last.http() as http:
            found = http.get("/v1/documents", params={"limit": 1000}).json()["data"]
            repaired = http.post("/v1/repair").json()["found"]
    assert job["state"] == "succeeded"
    assert job["receipt"]["added"] + job["receipt"]["unchanged"] == 200
    assert len(found) == 200
    assert not any(repaired.values())
    with sqlite3.connect(last.data_dir / "catalog.sqlite") as catalog:
        assert catalog.execute("SELECT count(*) FROM lives").fetchone() == (200,), "each was committed once"
    catalog.close()
