"""An environment with torch and sentence-transformers beside refdesk's own development tools, made by uv, once."""

import subprocess
import sys
from pathlib import Path
from shutil import rmtree

from tests.live.servers import CACHE, need

ROOT = CACHE.parent
TORCH, SENTENCE_TRANSFORMERS = "2.13.0", "6.2.0"


def torch_python() -> Path:
    """The Python of that environment, made anew if the lock of the development tools has changed."""
    uv = need("uv", str(ROOT / ".venv-uv" / "bin" / "uv"))
    env, lock = CACHE / "torch", ROOT / "requirements" / "dev.txt"
    wanted = f"torch {TORCH}, sentence-transformers {SENTENCE_TRANSFORMERS}\n{lock.read_text()}"
    if (env / "made-for").is_file() and (env / "made-for").read_text() == wanted:
        return env / "bin" / "python"
    rmtree(env, ignore_errors=True)
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(env)], check=True)
    wheels = [f"torch=={TORCH}", f"sentence-transformers=={SENTENCE_TRANSFORMERS}"]
    install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(env)]
    subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
    subprocess.run([*install, *wheels], check=True)
    (env / "made-for").write_text(wanted)  # last: it says that the environment is whole
    return env / "bin" / "python"
