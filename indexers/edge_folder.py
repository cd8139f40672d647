"""What is in a namespace's folder: the engine's shard, and one small file that says whose it is.

ROOT/docs-3f0a…/tenant-a-91bc…/{namespace.json, shard/}
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

from indexers.base import CollectionSpec, IndexUnavailableError
from indexers.folders import sync

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
