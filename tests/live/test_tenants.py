"""Generated requests by generated keys (eval/tenants.py) on the gpu profile's servers: none shows a key too much."""

from pathlib import Path
from uuid import uuid4

import pytest

from eval.tenants import check, routes
from tests.desks import open_desk
from tests.live.opensearch import OpenSearch
from tests.live.postgres import PASSWORD as CATALOG_PASSWORD
from tests.live.postgres import PostgresServer
from tests.live.redis import PASSWORD, RedisServer


@pytest.mark.parametrize("dense", ["edge", "qdrant"])
async def test_no_reply_shows_a_key_more_than_it_may_see(
    dense: str,
    search_node: OpenSearch,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    settings: dict[str, object] = {"dense_index": dense}
    if dense == "qdrant":
        server = request.getfixturevalue("qdrant_server")
        settings |= {"qdrant_url": server.url, "qdrant_grpc_port": server.grpc_port}
        settings["qdrant_prefix"] = f"t{uuid4().hex[:8]}-"
    for name, password in (("catalog", CATALOG_PASSWORD), ("redis", PASSWORD)):
        (tmp_path / name).write_text(password)
    async with (
        open_desk(
            tmp_path / "data",
            catalog_url=postgres_server.url(postgres_server.new_database()),
            catalog_password_file=tmp_path / "catalog",
            redis_url=redis_server.url(),
            redis_password_file=tmp_path / "redis",
            redis_timeout_ms=1000,  # the machine may be busy
            text_index="opensearch",
            opensearch_urls=search_node.url,
            opensearch_prefix=f"t{uuid4().hex[:8]}",
            opensearch_own_indices=2,  # the other namespaces share one
            opensearch_replicas=0,
            **settings,
        ) as desk
    ):
        report = await check(desk, 1000, seed=2)
        assert report.wrong == []
        assert report.asked.keys() >= routes(desk) - {"POST /v1/repair"}
