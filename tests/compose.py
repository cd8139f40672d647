"""The compose files as tests read them: their services, and what is said of each."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
Service = dict[str, Any]


def compose(file: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return parsed


def services() -> dict[str, Service]:
    """Of all files, by `file:service`."""
    return {f"{file}:{name}": service for file in FILES for name, service in compose(file)["services"].items()}


def ours() -> dict[str, Service]:
    """Those that run refdesk."""
    return {name: service for name, service in services().items() if service["image"].startswith("refdesk:")}


def unescaped(words: object) -> str:
    """A command's word as its container gets it: compose reads a dollar as a variable's unless it is doubled."""
    return str(words).replace("$$", "$")
