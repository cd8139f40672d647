"""What lies in a data folder; none of it is a document, wherever the folder is."""

from pathlib import Path

LOCK, CATALOG, INDEX, FAISS, ORIGINALS = "refdesk.lock", "catalog.sqlite", "index", "faiss", "originals"
DOCUMENTS = "documents"  # what the demo reads if it is not told what: the one part that is documents
_OWN = frozenset({LOCK, CATALOG, f"{CATALOG}-wal", f"{CATALOG}-shm", INDEX, FAISS, ORIGINALS})


def is_own(path: Path) -> bool:
    """Whether a path is refdesk's own part of some data folder: read as a document, a lock would show a token that lets
    in, and originals would be ingested again and again."""
    return path.name in _OWN and (path.parent / LOCK).is_file()
