"""Programs that refdesk is compared with, each in an environment of its own under .cache/peers.

What enters is the name of a peer; what leaves is the path of a Python that has it. Nothing of theirs is installed here.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".cache" / "peers"
_TORCH = "torch>=2.13"  # 5.5 GB with its CUDA libraries, which the registry's package cannot do without
_REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "refdesk": ("--require-hashes", "-r", str(ROOT / "requirements" / "embedded.txt")),
    "sentence-transformers": ("sentence-transformers>=6.2,<7", _TORCH),
    # langchain-community 0.4 lost a module that ragas 0.4.3 imports
    "ragas": ("ragas>=0.4.3,<0.5", "langchain-community<0.4"),
    "text-splitters": ("langchain-text-splitters>=1.1,<2", "semantic-text-splitter>=0.33,<0.34", "tokenizers"),
    "txtai": ("txtai[api]>=9.14,<10", _TORCH),
    "haystack": (
        "haystack-ai>=3.4,<3.5",
        "faiss-haystack>=3,<4",
        "hayhooks>=2.1,<3",
        "sentence-transformers-haystack>=2,<3",
        "sentence-transformers>=6.2,<7",
        _TORCH,
    ),
    "llamaindex": (
        "llama-index-core>=0.14.25,<0.15",
        "llama-index-embeddings-huggingface>=0.8,<0.9",
        "llama-index-retrievers-bm25>=0.8,<0.9",
        "llama-index-vector-stores-faiss>=0.7,<0.8",
        "sentence-transformers>=6.2,<7",
        _TORCH,
        "faiss-cpu>=1.15",
        "fastapi",
        "uvicorn",
    ),
    "langchain": (
        "langchain-classic>=1,<2",
        "langchain-community>=0.4.2,<0.5",
        "langchain-huggingface>=1.2,<2",
        "langchain-text-splitters>=1.1,<2",
        "sentence-transformers>=6.2,<7",
        _TORCH,
        "faiss-cpu>=1.15",
        "rank-bm25>=0.2.2",
        "fastapi",
        "uvicorn",
    ),
}
_SHARED = {"llamaindex256": "llamaindex"}  # another way of using the same packages
_COPIED = {"llamaindex"}  # its nltk reads no file that has a second name, as one in uv's cache has


@dataclass(frozen=True, slots=True)
class Size:
    """Megabytes (10⁶ bytes) of an environment's files; `cuda_mb` of them are of use with a GPU only."""

    installed_mb: float
    cuda_mb: float


def peer_python(name: str, given: Path | None = None) -> Path:
    """The peer's interpreter: `given`, or that of its environment, which uv makes when its requirements are new.

    Raises subprocess.CalledProcessError if the packages cannot be installed.
    """
    if given:
        return given
    name = _SHARED.get(name, name)
    python = PEERS / name / "bin" / "python"
    ready, wanted = PEERS / name / "ok", "\n".join(_REQUIREMENTS[name])
    if not ready.exists() or ready.read_text() != wanted:
        here = ROOT / ".venv-uv" / "bin" / "uv"
        uv = str(here) if here.exists() else shutil.which("uv") or "uv"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(PEERS / name)], check=True)
        mode = ["--link-mode", "copy"] if name in _COPIED else []
        subprocess.run([uv, "pip", "install", "-q", *mode, "--python", str(python), *_REQUIREMENTS[name]], check=True)
        ready.write_text(wanted)
    return python


def peer_size(python: Path) -> Size:
    """What the environment of an interpreter takes on the disk, without the bytecode that running it adds."""
    installed = cuda = 0
    for file in python.parent.parent.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.suffix != ".pyc":
            size = file.stat().st_size
            installed += size
            cuda += size if _is_cuda(file) else 0
    return Size(installed / 1e6, cuda / 1e6)


def _is_cuda(file: Path) -> bool:
    package = file.parts[file.parts.index("site-packages") + 1] if "site-packages" in file.parts else ""
    return package in {"nvidia", "triton"} or (package == "torch" and "cuda" in file.name and ".so" in file.name)
