"""The pipeline between documents and answers, and its faces: HTTP and the command line."""

import os

__version__ = "0.1.0"

# Before numpy is imported: its BLAS would start a thread a core, and their barriers cost a rerank's small products, on
# a machine that also embeds, 200 ms instead of 7.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
