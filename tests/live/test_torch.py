"""The torch models in an environment that has torch: the contracts, and what tests/torch holds."""

import os
import subprocess

import pytest

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
