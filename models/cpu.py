"""The processor as Linux describes it; on other systems it says no more than its kind."""

import os
import platform
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": microseconds of CPU time in each of so many; "max": no limit


def name() -> str:
    """Such as "AMD EPYC"."""
    return _described().get("model name") or platform.processor() or platform.machine()


def flags() -> frozenset[str]:
    """The instructions it has, by Linux's names, x86's or Arm's; none where they are not told."""
    described = _described()
    return frozenset(described.get("flags", described.get("Features", "")).split())


def cores(quota: Path = _QUOTA) -> int:
    """Those that this process may keep busy: of its affinity, and of its control group's quota, rounded up."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    share, _, period = quota.read_text(encoding="utf-8").partition(" ") if quota.is_file() else ("max", "", "")
    return usable if share == "max" else max(1, min(usable, -(-int(share) // int(period))))


@cache
def _described() -> Mapping[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
