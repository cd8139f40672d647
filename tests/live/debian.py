"""Servers that Debian packages: installed by apt where that is allowed, which is as root."""

import os
import shutil
import subprocess
from functools import cache
from glob import glob

from tests.live.servers import skip_without


def installed(program: str, package: str, *places: str) -> str:
    """The path of a program, on PATH or where one of the patterns leads; installs its package as root, else skips."""
    found = _find(program, places)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _apt_install(package)
        found = _find(program, places)
    return found or skip_without(f"{program} (Debian's {package})")


def _find(program: str, places: tuple[str, ...]) -> str | None:
    there = [path for place in places for path in sorted(glob(place), reverse=True) if os.access(path, os.X_OK)]
    return there[0] if there else shutil.which(program)


@cache
def _apt_install(package: str) -> None:
    """Without its service: a test starts the program itself. A failure shows in that the program is missing."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", package]):
        subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
