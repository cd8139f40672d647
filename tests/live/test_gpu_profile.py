"""The gpu profile's servers together, and two refdesk processes on them: one namespace, one queue, one cache."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from indexers.qdrant_server import QdrantServer
from tests.desks import GUIDE, NOTES, QUESTION
from tests.live.app import App, app, new_app
from tests.live.opensearch import OpenSearch
from tests.live.postgres import PASSWORD as CATALOG_PASSWORD
from tests.live.postgres import PostgresServer
from tests.live.qdrant import new_prefix, remove_collections
from tests.live.redis import PASSWORD, RedisServer
from tests.live.s3 import S3Server, settings_for
from tests.live.vllm import MODEL, Vllm

Settings = dict[str, object]


@pytest.fixture
def settings(
    qdrant_server: QdrantServer,
    search_node: OpenSearch,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    object_server: S3Server,
    tmp_path: Path,
) -> Iterator[Settings]:
    redis_server.client().flushall()
    bucket = asyncio.run(object_server.new_bucket())
    prefix = new_prefix()
    for name, password in (("catalog", CATALOG_PASSWORD), ("redis", PASSWORD)):
        (tmp_path / name).write_text(password)
    yield {
        "profile": "gpu",
        "catalog_url": postgres_server.url(postgres_server.new_database()),
        "catalog_password_file": tmp_path / "catalog",
        "redis_url": redis_server.url(),
        "redis_password_file": tmp_path / "redis",
        "redis_timeout_ms": 1000,  # the machine may be busy
        "qdrant_url": qdrant_server.url,
        "qdrant_grpc_port": qdrant_server.grpc_port,
        "qdrant_prefix": prefix,
        "opensearch_urls": search_node.url,
        "opensearch_prefix": prefix.rstrip("-"),
        "opensearch_replicas": 0,
        **settings_for(object_server, tmp_path, originals_url=f"s3://{bucket}/originals"),
    }
    asyncio.run(remove_collections(qdrant_server, prefix))


@pytest.fixture
def apps(settings: Settings, tmp_path: Path) -> Iterator[list[App]]:
    with ExitStack() as started:
        yield [started.enter_context(app(tmp_path / name, settings)) for name in ("one", "two")]


def documents(at: App) -> dict[str, str]:
    """uri → present text."""
    with at.http() as http:
        found = http.get("/v1/documents", params={"limit": 1000}).json()["data"]
        return {each["uri"]: http.get(f"/v1/documents/{each['id']}/text").json()["text"] for each in found}


def nothing_left(at: App) -> None:
    with at.http() as http:
        assert not any(http.post("/v1/repair").json()["found"].values())


def test_two_processes_share_documents_jobs_and_rankings(apps: list[App]) -> None:
    one, other = apps
    sent = []
    for n in range(6):
        files = {"same.txt": f"version {n} of the text", f"{n}.txt": f"the pump of number {n} moves water"}
        sent.append(apps[n % 2].send(files))
    done = [apps[(n + 1) % 2].ended(id_) for n, id_ in enumerate(sent)]
    assert [(job["state"], job["attempts"]) for job in done] == [("succeeded", 1)] * 6
    commits = [job["receipt"]["commit"] for job in done]
    assert commits == sorted(commits)
    for each in apps:
        there = documents(each)
        assert set(there) == {"same.txt", *(f"{n}.txt" for n in range(6))}
        assert there["same.txt"] == "version 5 of the text"
    first, second = one.search("Which pump moves water?"), other.search("Which pump moves water?")
    assert first["hits"]
    assert not first["degraded"]
    assert (first["cached"], second["cached"], second["hits"]) == (False, True, first["hits"])
    assert other.metric('refdesk_cache_total{level="l2",outcome="hit"}') == 1
    other.ended(other.send({"new.txt": "a pump that is new and moves water"}))
    third = one.search("Which pump moves water?")
    assert not third["cached"], "a commit of the other process makes what was ranked before it unfindable"
    assert "new.txt" in {hit["uri"] for hit in third["hits"]}
    nothing_left(one)


def test_all_servers_together_answer_with_citations(settings: Settings, llm: Vllm, tmp_path: Path) -> None:
    models = {"embedder": "all-MiniLM-L6-v2", "generator": MODEL, "generator_urls": llm.url}
    question = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    with app(tmp_path / "one", {**settings, **models}) as one:
        assert one.ended(one.send({"guide.md": GUIDE, "notes.md": NOTES}))["state"] == "succeeded"
        with one.http(timeout_s=120) as http:
            reply = http.post("/v1/chat/completions", json={**question, "max_tokens": 60}).json()
            assert (reply["refdesk"]["generator"], reply["refdesk"]["degraded"]) == (MODEL, [])
            assert "six months" in reply["choices"][0]["message"]["content"]
            assert reply["citations"]
            for cited in reply["citations"]:
                assert GUIDE[cited["start"] : cited["end"]] == cited["quote"]
                original = http.get(f"/v1/documents/{cited['document_id']}/original")
                assert original.content == GUIDE.encode()
        nothing_left(one)


@pytest.mark.parametrize("fault", ["job.taken", "commit.put", "commit.flushed", "commit.applied", "job.done"])
def test_a_process_that_is_killed_amid_a_job_leaves_it_to_the_other(
    settings: Settings, tmp_path: Path, fault: str
) -> None:
    files = {f"{n}.txt": f"text {n} about pumps " * 20 for n in range(30)}
    dying = new_app(tmp_path / "dying", {**settings, "fault": fault})
    dying.server.start()
    id_ = dying.send(files)
    dying.dies()
    with app(tmp_path / "other", settings) as other:
        job = other.ended(id_)
        assert (job["state"], job["attempts"]) == ("succeeded", 2)
        assert job["receipt"]["added"] + job["receipt"]["unchanged"] == 30
        assert set(documents(other)) == set(files)
        assert other.search("text about pumps")["hits"]
        nothing_left(other)
