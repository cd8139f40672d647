"""Docker Compose's own library, which reads and checks a compose file as `docker compose` does; built by Go, once."""

import json
import os
import subprocess
from pathlib import Path
from shutil import copy, rmtree
from typing import Any

from tests.live.servers import CACHE, need

VERSION = "2.16.2"
SOURCE = Path(__file__).parent / "compose" / "main.go"
_KEPT = CACHE / f"compose-go-{VERSION}"


def loaded(file: Path) -> dict[str, Any]:
    """The file as it is understood. Raises CalledProcessError, with what is wrong in its stderr."""
    printed = subprocess.run([str(program()), str(file)], check=True, capture_output=True, text=True).stdout
    project: dict[str, Any] = json.loads(printed)
    return project


def program() -> Path:
    """The program that reads compose files, built if it is not there; skips where there is no Go."""
    built = _KEPT / "compose"
    if built.exists() and (_KEPT / "main.go").read_text() == SOURCE.read_text():
        return built
    go = need("go")
    rmtree(_KEPT, ignore_errors=True)
    _KEPT.mkdir(parents=True)
    copy(SOURCE, _KEPT)
    environment = {**os.environ, "GOFLAGS": "-trimpath -modcacherw", "CGO_ENABLED": "0"}
    for command in (
        ["mod", "init", "refdesk.tests/compose"],
        ["mod", "edit", f"-require=github.com/compose-spec/compose-go/v2@v{VERSION}"],
        ["mod", "tidy"],
        ["build", "-o", "compose", "."],
    ):
        subprocess.run([go, *command], cwd=_KEPT, env=environment, check=True)
    return built
