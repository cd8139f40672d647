"""The far side of eval/compare_peers.py, run as a script by the Python of the program that it measures.

`peer_run.py NAME MODEL FOLDER` reads a command a line from stdin and answers each with a line of JSON; with a PORT it
serves what FOLDER holds over HTTP instead. NAME is that of a module beside this file, whose class Peer does the work.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def ingest(peer: Any, corpus: str) -> dict[str, object]:
    """From a BEIR corpus.jsonl on the disk to documents that can be searched."""
    started, cpu = time.perf_counter(), time.process_time()
    peer.ingest(corpus)
    return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def build(peer: Any, chunks: str) -> dict[str, object]:
    """From texts and their vectors to an index kept in the folder."""
    import numpy as np

    texts = json.loads(Path(chunks, "texts.json").read_text(encoding="utf-8"))
    vectors = np.load(Path(chunks, "vectors.npy"))
    started, cpu = time.perf_counter(), time.process_time()
    peer.build(texts, vectors)
    return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def load(peer: Any) -> dict[str, object]:
    """Open what `build` kept."""
    started = time.perf_counter()
    peer.load()
    return {"seconds": time.perf_counter() - started}


def search(peer: Any, questions: Sequence[str], top_k: int, warm: int, options: dict[str, object]) -> dict[str, object]:
    """One question after another, the first `warm` uncounted: milliseconds, and the ids of the hits, best first."""
    taken, found = [], []
    for question in questions[:warm]:
        peer.search(question, top_k, **options)
    cpu = time.process_time()
    for question in questions[warm:]:
        started = time.perf_counter()
        hits = peer.search(question, top_k, **options)
        taken.append((time.perf_counter() - started) * 1e3)
        found.append([id_ for id_, _, _ in hits])
    return {"ms": taken, "cpu_s": time.process_time() - cpu, "found": found}


def peak_mib() -> float:
    """The most memory that this process has held at once, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


COMMANDS: dict[str, Callable[..., dict[str, object]]] = {
    "ingest": ingest,
    "build": build,
    "load": load,
    "search": search,
}


def main() -> None:
    """Answer commands until stdin ends, or serve."""
    name, model, folder, *port = sys.argv[1:]
    module = import_module(f"peer_{name}")
    if port:
        module.serve(model, folder, int(port[0]))
        return
    answers = os.fdopen(os.dup(1), "w")  # what a library prints goes to stderr
    os.dup2(2, 1)
    peer = module.Peer(model, folder)
    versions = {d.name: d.version for d in distributions() if d.name in module.PACKAGES}
    print(json.dumps({"versions": versions}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = COMMANDS[command.pop("do")](peer, **command)
        print(json.dumps(answer | {"peak_mib": peak_mib()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
