"""The torch models in an environment that has torch: the contracts, what tests/torch holds, and a benchmark's peer."""

import os
import subprocess

import pytest

from eval.embed import Peer
from models.store import ModelStore
from tests.live.torch_environment import ROOT, torch_python


@pytest.mark.parametrize(
    "chosen", ["tests/contracts/test_embedder.py", "tests/contracts/test_reranker.py", "tests/torch"]
)
def test_in_the_torch_environment(chosen: str) -> None:
    only = ["-k", "torch"] if "contracts" in chosen else []
    command = [str(torch_python()), "-m", "pytest", chosen, *only]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    print(ended.stdout[-8000:])
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
    assert " passed" in ended.stdout or "100%" in ended.stdout


def test_the_embedder_is_compared_with_one_that_runs() -> None:
    peer = Peer(torch_python(), ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path, ["a few words"] * 3)
    assert peer.run().wall_s > 0
    peer.close()
