"""Qdrant's shards as namespaces that are opened and closed; and a namespace copied into a new shard."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from indexers.base import Namespace
from indexers.bm25 import Bm25
from indexers.edge_folder import Folder, read_folder
from indexers.edge_shard import Shard, create_shard, map_errors
from indexers.open_folders import OpenFolders


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """`open_at_once`: how many shards; `large_from`: points from which on a shard is a large one."""

    open_at_once: int
    large_from: int


class EdgeFolders:
    """Implements indexers.open_folders.Engine."""

    def make(self, path: Path, namespace: Namespace) -> None:
        folder = Folder(path, namespace.collection, namespace.name)
        create_shard(folder.shard_path, folder, is_large=False)
        folder.save()

    def open(self, path: Path) -> Shard:
        return Shard(read_folder(path))

    def name(self, path: Path) -> str:
        return read_folder(path).name

    def map_errors(self, what: object) -> AbstractContextManager[None]:
        return map_errors(what)


class OpenShards(OpenFolders[Shard]):
    """The namespaces under a folder, and the shards of them that are open."""

    def __init__(self, root: Path, limits: ShardLimits, files: ThreadPoolExecutor) -> None:
        """`files` is the one thread that opens, writes and closes: a shard is then never closed under a write."""
        super().__init__(root, limits.open_at_once, EdgeFolders(), files)
        self._large_from = limits.large_from

    async def create(self, namespace: Namespace) -> None:
        """Make it, if it is not there. Raises IndexerError for a language that BM25 does not know."""
        await self.run(Bm25, namespace.collection.language)  # before there are files
        await super().create(namespace)

    async def copy(self, namespace: Namespace) -> None:
        """Copy a namespace into a new shard of the form that its size asks for, slice by slice, and go on with that
        one. Writers wait; searches go on in the old shard until the new one takes its place in one step."""
        entry = self._entry(namespace)
        async with entry.writer:
            async with self.use(namespace) as shard:
                copy = await self._copy(shard)
            async with entry.door:
                await entry.wait_until_unused()
                await self.run(_switch, copy)
                old, entry.opened = entry.opened, copy
            await self.run(_discard, old, shard.folder.shard_path)

    async def _copy(self, shard: Shard) -> Shard:
        folder = await self.run(shard.folder.with_next_shard)
        is_large = await self.run(shard.count, None) >= self._large_from
        await self.run(partial(create_shard, folder.shard_path, folder, is_large=is_large))
        copy = await self.run(Shard, folder)
        after = await self.run(shard.copy_some, copy, None)
        while after is not None:
            after = await self.run(shard.copy_some, copy, after)
        await self.run(copy.measure)
        await self.run(copy.flush)
        return copy


def _switch(copy: Shard) -> None:
    with map_errors(copy.folder.name):
        copy.folder.save()


def _discard(old: Shard | None, path: Path) -> None:
    if old is not None:
        old.close()
    with map_errors(path):
        shutil.rmtree(path)
