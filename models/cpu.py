"""The processor as Linux describes it; on other systems it says no more than its kind."""

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path


def name() -> str:
    """Such as "AMD EPYC"."""
    return _described().get("model name") or platform.processor() or platform.machine()


def flags() -> frozenset[str]:
    """The instructions it has, by Linux's names, x86's or Arm's; none where they are not told."""
    described = _described()
    return frozenset(described.get("flags", described.get("Features", "")).split())


@cache
def _described() -> Mapping[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
