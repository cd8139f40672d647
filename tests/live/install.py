"""What the live tests download and build, fetched ahead: `python -m tests.live.install`.

Each test fetches what it lacks itself; ahead of them all this can run beside something else.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import pytest

from tests.live import compose_loader, opensearch, s3, torch_environment, vllm

PARTS: Mapping[str, Callable[[], object]] = {
    "OpenSearch": opensearch.fetch_jars,
    "vLLM": vllm.environment,
    "vLLM's model": vllm.model_folder,
    "torch": torch_environment.torch_python,
    "an S3 server": s3.program,
    "compose's library": compose_loader.program,
}


def main() -> None:
    """Fetch every part; exits with 1 if one failed. One whose tool is missing is named and left to its tests."""
    failed = False
    for name, fetch in PARTS.items():
        started = time.monotonic()
        try:
            fetch()
            outcome = "there"
        except pytest.skip.Exception as skipped:
            outcome = str(skipped)
        except (OSError, subprocess.CalledProcessError) as exc:
            failed, outcome = True, f"failed: {exc}"
        print(f"{name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
