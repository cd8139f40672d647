"""faiss's namespaces as folders that are made, opened and closed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from indexers.base import Namespace
from indexers.faiss_partition import Partition
from indexers.faiss_rows import Rows, map_errors


class FaissFolders:
    """Implements indexers.open_folders.Engine. `open` makes a partition of a folder."""

    def __init__(self, open_: Callable[[Path], Partition]) -> None:
        self.open = open_

    def make(self, path: Path, namespace: Namespace) -> None:
        Rows.make(path, namespace)

    def name(self, path: Path) -> str:
        return Rows.name_in(path)

    def map_errors(self, what: object) -> AbstractContextManager[None]:
        return map_errors(what)
