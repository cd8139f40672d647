"""What deploy/ and the compose files promise: settings that load, one published port, pinned images, secret files."""

import os
import re
from pathlib import Path

import pytest
import yaml

from server.settings import Settings
from tests.compose import FILES, ROOT, Service, compose, ours, services

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SERVICES, OURS = services(), ours()
GPU = compose("docker-compose.gpu.yml")


def load(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name in [name for name in os.environ if name.startswith("REFDESK_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def of_the_image() -> dict[str, str]:
    return dict(re.findall(r"(REFDESK_\w+)=(\S+)", DOCKERFILE))


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_the_settings_of_each_service_load(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    given = service["environment"]
    assert all(isinstance(value, str) for value in given.values())
    settings = load(monkeypatch, {**of_the_image(), **given})
    assert settings.keys_required
    assert (str(settings.data_dir), settings.port) == ("/data", 8080)


def test_the_gpu_profile_is_meant_by_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    app = load(monkeypatch, {**of_the_image(), **GPU["services"]["app"]["environment"]})
    assert (app.profile, app.dense_index, app.text_index) == ("gpu", "qdrant", "opensearch")
    assert (app.catalog_url, app.originals_url) == (
        "postgresql://refdesk@postgres:5432/refdesk",
        "s3://refdesk/originals",
    )
    node = load(monkeypatch, {**of_the_image(), **GPU["services"]["node"]["environment"]})
    assert (node.role, node.runtime, node.embedder) == ("models", "torch", app.embedder)


@pytest.mark.parametrize("name", OURS)
def test_a_wrong_name_would_be_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="REFDESK_NO_SUCH"):
        load(monkeypatch, {**of_the_image(), **OURS[name]["environment"], "REFDESK_NO_SUCH": "1"})


def test_services_are_asked_where_they_are() -> None:
    """Every address in an environment names a service of the file, at the port that its health is asked at."""
    found = {
        (host, port)
        for value in GPU["services"]["app"]["environment"].values()
        for host, port in re.findall(r"://(?:\w+@)?([\w-]+):(\d+)", value)
    }
    assert {host for host, _ in found} == {"node", "vllm", "qdrant", "opensearch", "postgres", "redis", "s3"}
    for host, port in found:
        assert port in str(GPU["services"][host]["healthcheck"]["test"]), (host, port)


def test_the_app_alone_publishes_a_port() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {f"{file}:app": ["127.0.0.1:8080:8080"] for file in FILES}
    inside = {name for name, service in GPU["services"].items() if service["networks"] == ["inside"]}
    assert inside == set(GPU["services"]) - {"app"}
    assert GPU["networks"]["inside"] == {"internal": True}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_image_is_pinned(service: Service) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?(@sha256:[0-9a-f]{64})?", service["image"])


def test_the_images_of_the_dockerfile_are_pinned() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image)
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert len(stages) == len(re.findall("^FROM ", DOCKERFILE, re.MULTILINE))
    names = {name for _, name in stages}
    assert {base for base, _ in stages} - names == {"${PYTHON_IMAGE}"}
    targets = {service["build"]["target"] for service in OURS.values()}
    assert targets == {"embedded", "cluster", "gpu"} <= names
    assert stages[-1][1] == "embedded"


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_service_is_bounded_and_asked_for_its_health(service: Service) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_our_containers_have_a_read_only_root_and_no_capabilities(service: Service) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "\nUSER 10001:10001\n" in DOCKERFILE


def test_a_gpu_is_reserved_where_one_is_used() -> None:
    wanted = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    reserving = {name: s["deploy"]["resources"].get("reservations") for name, s in GPU["services"].items()}
    assert {name for name, found in reserving.items() if found == {"devices": wanted}} == {"node", "vllm"}


def test_every_secret_is_a_file_and_is_used() -> None:
    assert {name: secret["file"] for name, secret in GPU["secrets"].items()} == {
        name: f"./secrets/{name}" for name in GPU["secrets"]
    }
    given = {secret for service in GPU["services"].values() for secret in service.get("secrets", ())}
    assert given == set(GPU["secrets"])
    for name, service in GPU["services"].items():
        mentioned = set(re.findall(r"/run/secrets/(\w+)", yaml.safe_dump(service)))
        assert mentioned == set(service.get("secrets", ())), name
        for variable, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD|SECRET", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert str(value).startswith("/run/secrets/")


def test_secrets_and_weights_go_into_no_commit_and_no_image() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/weights/"} <= set(ignored)
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert sent[0] == "*"
    copied = set(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE))
    wanted = {name.strip("/") for line in copied for name in line.split()}
    assert wanted == {line[1:] for line in sent if line.startswith("!")}


@pytest.mark.parametrize(("lock", "has_torch"), [("embedded", False), ("cluster", False), ("gpu", True)])
def test_the_locks_of_the_images(lock: str, has_torch: bool) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert f"requirements/{lock}.txt" in DOCKERFILE
    assert DOCKERFILE.count("--require-hashes") == 4
    assert bool(re.search(r"^torch==", text, re.MULTILINE)) == has_torch
    assert "://" not in re.sub(r"#.*", "", text)
    pinned = re.split(r"\n(?=\w)", text.strip())
    assert all("--hash=sha256:" in package for package in pinned if "==" in package)


def test_the_locks_agree_on_what_they_share() -> None:
    versions: dict[str, set[frozenset[str]]] = {}
    for lock in ("embedded", "cluster", "gpu", "dev"):
        for name, pinned in _lock(lock).items():
            versions.setdefault(name, set()).add(pinned)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def _lock(name: str) -> dict[str, frozenset[str]]:
    """Package → its versions, of which Pythons may have one each."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return {package: frozenset(versions) for package, versions in found.items()}


def test_no_registry_is_named() -> None:
    for path in (Path("deploy/Dockerfile"), *map(Path, FILES)):
        assert not re.search(r"(pypi|pythonhosted|index-url|extra-index)", (ROOT / path).read_text()), path


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python 3.11.2, which Debian 12 has, takes such a pattern for another one (gh-106052, mended in 3.11.5)."""
    written = re.compile(r"\)(?:[*+?]|\{[\d,]*\})\+|\(\?>")
    assert written.search("(?:a|b)*+")
    for path in (
        path for package in ("models", "indexers", "server", "eval") for path in (ROOT / package).rglob("*.py")
    ):
        assert not written.search(path.read_text()), path
