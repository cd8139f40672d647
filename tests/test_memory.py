"""What is freed goes back to the system; how much an ingestion and a server hold is measured by `eval.memory`."""

import os
import subprocess
import sys

import pytest

# A large block that is freed teaches glibc to take the next ones from a heap, where small ones after them pin them.
_FREED = """
{setup}
def held(): return int(open("/proc/self/statm").read().split()[1]) * 4096
bytearray(b"x") * (30 << 20)
before, blocks, pins = held(), [], []
for _ in range(20):
    blocks.append(bytearray(b"x") * (5 << 20))
    pins.append(bytearray(b"x") * 2000)
blocks.clear()
print((held() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_arrays_are_given_back() -> None:
    def kept_mib(setup: str, **extra: str) -> int:
        env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | extra
        command = [sys.executable, "-c", _FREED.format(setup=setup)]
        return int(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)

    assert kept_mib("import server") <= 20
    # the operator's own choice stands
    theirs = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    assert kept_mib("import server", **theirs) >= 60
