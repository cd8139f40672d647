"""A real OpenSearch node, from Maven Central, run by any JDK from 21 on. Security is off: it speaks plain HTTP."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, rmtree, which
from urllib.request import urlopen

from tests.live.servers import CACHE, Server, free_port, need, skip_without

SOURCES = Path(__file__).parent / "java"
OLDEST_JAVA = 21
_JDK_FOLDERS = ("/usr/lib/jvm", "/opt/java", "/Library/Java/JavaVirtualMachines")


@dataclass(frozen=True)
class OpenSearch:
    """A running node: its URL, and the process behind it."""

    url: str
    server: Server


@contextmanager
def opensearch(folder: Path, **settings: str) -> Iterator[OpenSearch]:
    """A node with its data under `folder`; of a setting's name `__` stands for the dot."""
    java, jars = find_java(), fetch_jars()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    chosen = {
        "http.port": str(port),
        "transport.port": str(free_port()),
        "discovery.type": "single-node",
        "cluster.routing.allocation.disk.threshold_enabled": "false",  # a machine of developers may well be full
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    command = [
        java,
        "-Xms256m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-cp",
        f"{jars}/*",
        str(SOURCES / "Start.java"),
        str(folder / "node"),
        *(f"{name}={value}" for name, value in chosen.items()),
    ]
    with Server("opensearch", command, folder, lambda: _is_ready(url)) as server:
        yield OpenSearch(url, server)


def _is_ready(url: str) -> bool:
    with urlopen(f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s", timeout=5) as answer:
        return bool(answer.status == 200)


def find_java() -> str:
    """A `java` of a JDK from 21 on (source mode needs its compiler); skips where there is none."""
    on_path = which("java")
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    homes += [Path(on_path).resolve().parents[1]] if on_path else []
    for folder in map(Path, _JDK_FOLDERS):
        homes += sorted([*folder.glob("*"), *folder.glob("*/Contents/Home")], reverse=True)
    for home in homes:
        if os.access(home / "bin" / "javac", os.X_OK) and _version(home) >= OLDEST_JAVA:
            return str(home / "bin" / "java")
    return skip_without(f"a JDK from version {OLDEST_JAVA} on (set JAVA_HOME)")


def _version(home: Path) -> int:
    try:
        found = re.search(r'JAVA_VERSION="(\d+)', (home / "release").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def fetch_jars() -> Path:
    """The folder of the node's libraries, downloaded by Maven once for each state of its pom.xml."""
    pom = SOURCES / "pom.xml"
    kept = CACHE / "opensearch"
    if (kept / "pom.xml").exists() and (kept / "pom.xml").read_text() == pom.read_text():
        return kept / "lib"
    rmtree(kept, ignore_errors=True)
    copied = ["dependency:copy-dependencies", f"-DoutputDirectory={kept / 'lib'}"]
    subprocess.run([need("mvn"), "-q", "-B", "-f", str(pom), *copied], check=True)
    copy(pom, kept / "pom.xml")  # last: it says that the folder is whole
    return kept / "lib"
