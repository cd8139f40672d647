"""The other side of eval/embed.py, run as a script by a Python that has sentence-transformers and nothing of ours.

Reads a JSON list of passages, answers with versions; then each line read is one run, answered with its seconds, those
of the clock and those of the CPU.
"""

import json
import sys
import time
from importlib import import_module


def main() -> None:
    """Serve runs of SentenceTransformer.encode with its defaults until stdin ends."""
    peer, torch = import_module("sentence_transformers"), import_module("torch")
    model = peer.SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
    passages = json.loads(sys.stdin.readline())
    model.encode(passages[:32], show_progress_bar=False)
    print(f"sentence-transformers {peer.__version__}, torch {torch.__version__}", flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        model.encode(passages, show_progress_bar=False)
        print(time.perf_counter() - start, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
