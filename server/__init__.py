"""The pipeline between documents and answers, and its faces: HTTP and the command line."""

import ctypes
import os
import sys

__version__ = "0.1.0"

# Before numpy is imported: its BLAS would start a thread a core, and their barriers cost a rerank's small products, on
# a machine that also embeds, 200 ms instead of 7.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _give_memory_back() -> None:
    """Keep glibc from holding what is freed: unless told otherwise it learns from each freed array to take larger ones,
    up to 32 MiB, from heaps that it hardly ever returns, and an ingestion then held twice the memory it used.

    mallopt(3): a block of 4 MiB or more is mapped on its own, and of what is free at a heap's end 16 MiB are kept.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return  # another system, another C library, or the operator's own choice
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 4 * 2**20)
    mallopt(m_trim_threshold, 16 * 2**20)


_give_memory_back()
