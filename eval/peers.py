"""Programs that refdesk is compared with, each in an environment of its own under .cache/peers.

What enters is the name of a peer; what leaves is the path of a Python that has it. Nothing of theirs is installed here.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PEERS = ROOT / ".cache" / "peers"
_REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "sentence-transformers": ("sentence-transformers>=6.2,<7", "torch>=2.13"),  # 5.5 GB with torch's CUDA libraries
    # langchain-community 0.4 lost a module that ragas 0.4.3 imports
    "ragas": ("ragas>=0.4.3,<0.5", "langchain-community<0.4"),
    "text-splitters": ("langchain-text-splitters>=1.1,<2", "semantic-text-splitter>=0.33,<0.34", "tokenizers"),
}


def peer_python(name: str, given: Path | None = None) -> Path:
    """The peer's interpreter: `given`, or that of its environment, which uv makes on the first call.

    Raises subprocess.CalledProcessError if the packages cannot be installed.
    """
    if given:
        return given
    python = _PEERS / name / "bin" / "python"
    ready = _PEERS / name / "ok"
    if not ready.exists():
        here = ROOT / ".venv-uv" / "bin" / "uv"
        uv = str(here) if here.exists() else shutil.which("uv") or "uv"
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(_PEERS / name)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *_REQUIREMENTS[name]], check=True)
        ready.touch()
    return python
