"""The frame itself: a server that is killed comes back over its data; one that does not come up shows its log."""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.live.opensearch import opensearch
from tests.live.servers import Server


def _put(url: str, body: object) -> None:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PUT")
    with urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 201)


def test_a_node_that_is_killed_comes_back_with_its_data(tmp_path: Path) -> None:
    with opensearch(tmp_path) as node:
        _put(f"{node.url}/books/_doc/1", {"title": "pumps"})
        node.server.kill()
        assert not node.server.is_running
        node.server.start()
        with urlopen(f"{node.url}/books/_doc/1", timeout=30) as answer:
            assert json.load(answer)["_source"] == {"title": "pumps"}
    assert not node.server.is_running


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the port is taken'); raise SystemExit(1)"]
    with pytest.raises(RuntimeError, match="the port is taken"), Server("broken", command, tmp_path, lambda: False):
        pass
