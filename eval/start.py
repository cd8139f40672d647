"""How soon a server is ready with many namespaces on disk, and what memory it holds after a thousand searches.

`python -m eval.start` makes a data folder with 1,000 namespaces, starts a real server on it, and waits for /ready.
"""

import argparse
import asyncio
import io
import tempfile
import time
from pathlib import Path

from eval import command
from eval.latency import server
from indexers.sources import Upload
from server.build import build
from server.ingest import Target
from server.settings import Settings


async def make(folder: Path, namespaces: int) -> None:
    """A data folder with that many namespaces, a short document in each."""
    desk = await build(Settings(data_dir=folder), command="eval.start")
    try:
        for i in range(namespaces):
            text = f"Namespace {i} holds one document. The pump of site {i} is serviced every {i + 1} days."
            upload = Upload("service.txt", io.BytesIO(text.encode()))
            await desk.pipeline.ingest([upload], Target("docs", f"site-{i}"))
    finally:
        await desk.close()


def proportional_mib(pid: int) -> float:
    """Proportional set size of a process, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespaces", type=int, default=1000)
    parser.add_argument("--searches", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(make(Path(folder), arguments.namespaces))
        started = time.perf_counter()
        with server(Path(folder), Path(folder, "log")) as running:
            ready_s = time.perf_counter() - started
            for i in range(arguments.searches):
                body = {"question": f"How often is pump {i} serviced?", "namespace": f"site-{i % arguments.namespaces}"}
                reply = running.client.post("/v1/search", json=body)
                if reply.status_code != 200 or not reply.json()["hits"]:
                    raise SystemExit(f"search failed: {reply.status_code} {reply.text[:300]}")
            print(f"{arguments.namespaces} namespaces on disk: ready after {ready_s:.2f} s")
            print(
                f"after {arguments.searches} searches over all of them: {proportional_mib(running.pid):.0f} MiB (PSS)"
            )


if __name__ == "__main__":
    command.run(main)
