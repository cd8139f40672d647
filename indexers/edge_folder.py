"""Where a namespace lies on disk: a folder with the engine's shard and one small file that says whose it is.

    ROOT/docs-3f0a…/tenant-a-91bc…/{namespace.json, shard/}

Folder names are a readable part and a hash, so that names may hold any characters. A folder appears by a rename when
it is whole, and disappears by a rename before it is deleted: what begins with "." is never one.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from indexers.base import CollectionSpec, IndexUnavailableError

_FILE = "namespace.json"


@dataclass(frozen=True, slots=True)
class Folder:
    """A namespace's folder. A numeric field's place in `numeric_fields` is its number in the shard, for good."""

    path: Path
    spec: CollectionSpec
    name: str
    numeric_fields: tuple[str, ...] = ()
    shard: str = "shard"
    removed: int = 0  # points removed from the shard since it was made, whose space only a new one gives back

    @property
    def shard_path(self) -> Path:
        return self.path / self.shard

    def with_next_shard(self) -> "Folder":
        """The folder with a place for a new shard, which becomes the namespace's when the folder is saved."""
        for left in self.path.glob("shard*"):
            if left != self.shard_path:  # a copy that was interrupted
                shutil.rmtree(left)
        return replace(self, shard=f"shard-{uuid4().hex[:8]}", removed=0)

    def with_numeric_fields(self, fields: tuple[str, ...]) -> "Folder":
        """The folder knowing these fields as well, on disk before this returns."""
        folder = replace(self, numeric_fields=self.numeric_fields + fields)
        folder.save()
        return folder

    def save(self) -> None:
        """Write namespace.json in one step that a crash leaves done or undone."""
        content = {
            "collection": asdict(self.spec),
            "namespace": self.name,
            "numeric_fields": self.numeric_fields,
            "shard": self.shard,
            "removed": self.removed,
        }
        new = self.path / f".{_FILE}"
        with new.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / _FILE)
        sync(self.path)


def folder_path(root: Path, collection: str, namespace: str) -> Path:
    return root / _safe(collection) / _safe(namespace)


def read_folder(path: Path) -> Folder:
    """Read namespace.json. Raises FileNotFoundError, or IndexUnavailableError if it is not what we wrote."""
    try:
        content = json.loads((path / _FILE).read_text(encoding="utf-8"))
        spec = CollectionSpec(**content["collection"])
        fields = tuple(content["numeric_fields"])
        return Folder(
            path, spec, content["namespace"], fields, content.get("shard", "shard"), content.get("removed", 0)
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise IndexUnavailableError(f"{str(path / _FILE)!r} is damaged ({exc}); restore it from a backup") from exc


def folders(root: Path, collection: str) -> Iterator[Folder]:
    """Every namespace of a collection."""
    parent = root / _safe(collection)
    if parent.is_dir():
        for path in parent.iterdir():
            if not path.name.startswith("."):
                yield read_folder(path)


def unfinished(path: Path) -> Path:
    """A place beside `path` to build it in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".new-{uuid4().hex}"


def remove(path: Path) -> None:
    """Take the folder away in one step, then delete what was in it."""
    gone = path.parent / f".gone-{uuid4().hex}"
    path.rename(gone)
    sync(path.parent)
    shutil.rmtree(gone)


def remove_leftovers(root: Path) -> None:
    """Delete what an interrupted create or remove left behind."""
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
