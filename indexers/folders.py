"""Where namespaces lie on disk: a folder each, under one for their collection.

Folder names are a readable part and a hash, so that names may hold any characters. A folder appears by a rename when
it is whole, and disappears by a rename before it is deleted: what begins with "." is never one.
"""

import os
import re
import shutil
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from uuid import uuid4


@lru_cache(maxsize=4096)  # every search asks
def folder_path(root: Path, collection: str, namespace: str) -> Path:
    return root / _safe(collection) / _safe(namespace)


def folders(root: Path, collection: str) -> list[Path]:
    """Those of a collection's namespaces, in no order."""
    parent = root / _safe(collection)
    return [path for path in parent.iterdir() if not path.name.startswith(".")] if parent.is_dir() else []


def unfinished(path: Path) -> Path:
    """A new folder beside `path`, to build in what will be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.parent / f".new-{uuid4().hex}"
    made.mkdir()
    return made


def finish(made: Path, path: Path) -> None:
    """Let what was built be at `path`, in one step."""
    sync(made)
    made.rename(path)
    sync(path.parent)


def remove(path: Path) -> None:
    """Take the folder away in one step, then delete what was in it."""
    gone = path.parent / f".gone-{uuid4().hex}"
    path.rename(gone)
    sync(path.parent)
    shutil.rmtree(gone)


def remove_leftovers(root: Path) -> None:
    """Delete what an interrupted making or removing left behind."""
    for path in root.glob("*/.*-*"):
        shutil.rmtree(path)


def sync(path: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _safe(name: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{readable}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
