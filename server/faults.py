"""Named places where a test may kill the process: REFDESK_FAULT="commit.put:2" dies at the second passing of one.

Without that variable a passing costs one comparison. The names are registered, so that a test can try each.
"""

import os
import signal

POINTS = (
    "create.catalog",  # a namespace is in the catalog, not in the index
    "commit.begun",  # the commit number is pending, nothing written
    "commit.put",  # after each slice of points
    "commit.deleted",  # ended points are stamped
    "commit.patched",  # after each patched document
    "commit.flushed",  # the index is durable, the catalog knows nothing of it
    "commit.catalog_deleted",  # inside the catalog's transaction
    "commit.catalog_written",
    "commit.catalog_advanced",
    "commit.applied",  # visible; deleted documents are still to be purged
    "purge.index",  # gone from the index, not flushed
    "purge.flushed",
    "purge.finished",
    "undo.index",  # after a crash: stamps above E are lifted, not flushed
    "undo.flushed",
    "undo.finished",
    "sweep.horizon",  # older commits are refused, nothing removed
    "sweep.index",
    "sweep.flushed",
    "sweep.catalog",  # after each batch
    "drop.begun",
    "drop.index",
    "drop.catalog",  # after each batch
    "drop.finished",
)
JOB_POINTS = (  # passed by workers of jobs alone
    "job.taken",  # nothing done yet
    "job.done",  # everything committed, the catalog not told that the job ended
)


def _wanted() -> tuple[str, int] | None:
    wanted = os.environ.get("REFDESK_FAULT")
    if not wanted:
        return None
    point, _, passing = wanted.partition(":")
    if point not in POINTS + JOB_POINTS or not (passing or "1").isdecimal():
        known = ", ".join(POINTS + JOB_POINTS)
        raise ValueError(f"REFDESK_FAULT={wanted!r}: name one of {known}, or one with :N, or unset it")
    return point, int(passing or 1)


_fault = _wanted()
_passed = 0


def arm() -> None:
    """Read REFDESK_FAULT anew: for a process that was forked from one that had imported this already."""
    global _fault, _passed
    _fault, _passed = _wanted(), 0


def reach(point: str) -> None:
    """Pass a fault point: nothing happens unless the environment names it; then SIGKILL, as from outside."""
    if _fault is not None and _fault[0] == point:
        global _passed
        _passed += 1
        if _passed == _fault[1]:
            os.kill(os.getpid(), signal.SIGKILL)
