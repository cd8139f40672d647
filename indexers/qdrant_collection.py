"""The Qdrant collections behind a collection of refdesk's: how they are made, indexed, and exchanged for one another.

Readers and writers use the alias `refdesk-docs`; behind it stands `refdesk-docs-v1`. Another version is filled beside
it (QdrantIndex.at_version) and takes its place in one call.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Literal

from qdrant_client import AsyncQdrantClient, models

from indexers.base import CollectionSpec, DimensionMismatchError, IndexerError, IndexUnavailableError
from indexers.qdrant_calls import Calls, CollectionMissingError
from indexers.qdrant_filter import BORN, DIED, GROUPS, ID, KEYWORDS, NAMESPACE, NUMBERS, any_of
from indexers.qdrant_point import DENSE, NAME

Quantization = Literal["none", "scalar", "binary", "turbo"]
Sharding = Literal["auto", "custom"]

_DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dotproduct": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
}
_PAGE = 1000
_COMMITS = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True, enable_hnsw=False)


@dataclass(frozen=True, slots=True)
class QdrantOptions:
    """How collections are made and asked. The first five hold for a collection from when it is made.

    `sharding` "custom" gives each namespace shards of its own. `write_consistency`: how many replicas must have applied
    a write. `oversampling`: how many times top_k candidates the quantised vectors choose for the exact ones; 0: as many
    as the quantisation needs.
    """

    shards: int = 1
    replicas: int = 1
    write_consistency: int = 1
    quantization: Quantization = "scalar"
    sharding: Sharding = "auto"
    on_disk: bool = False  # the full vectors; the quantised ones stay in memory
    graph_links: int = 16  # of a vector in its namespace's HNSW graph
    search_width: int = 128  # HNSW's ef
    oversampling: float = 0.0
    at_once: int = 4  # batches of an upsert under way
    prefix: str = "refdesk-"

    @property
    def chosen_oversampling(self) -> float:
        return self.oversampling or (8.0 if self.quantization == "binary" else 2.0)


class QdrantCollections:
    """Makes collections and says which one is meant. `version` None is the one that the alias names."""

    def __init__(
        self, client: AsyncQdrantClient, calls: Calls, options: QdrantOptions, version: int | None = None
    ) -> None:
        self._client = client
        self._calls = calls
        self._options = options
        self._version = version

    def alias(self, collection: str) -> str:
        return f"{self._options.prefix}{collection}"

    def target(self, collection: str) -> str:
        """The name under which requests find the collection."""
        alias = self.alias(collection)
        return alias if self._version is None else _versioned(alias, self._version)

    async def ensure(self, spec: CollectionSpec) -> None:
        """Make the collection with its payload indexes, unless it is there. Raises DimensionMismatchError if it has
        another dimension or metric."""
        if not await self._exists(self.target(spec.name)):
            version = self._version or 1
            await self._make(spec, _versioned(self.alias(spec.name), version))
            if self._version is None:
                await self._name(spec.name, version)
        await self._check(spec)

    async def live_version(self, collection: str) -> int | None:
        """The version that readers see; None before there is one."""
        alias = self.alias(collection)
        aliases = await self._calls.run(self._client.get_aliases)
        names = [one.collection_name for one in aliases.aliases if one.alias_name == alias]
        return int(names[0].removeprefix(f"{alias}-v")) if names else None

    async def switch(self, collection: str, version: int) -> None:
        """Let readers and writers see another version, in one step. Raises CollectionMissingError."""
        if not await self._exists(_versioned(self.alias(collection), version)):
            raise CollectionMissingError(f"collection {collection!r} has no version {version} in Qdrant; fill it first")
        await self._name(collection, version)

    async def remove(self, collection: str, version: int) -> None:
        """Delete a version that readers no longer see."""
        if await self.live_version(collection) == version:
            raise IndexerError(f"version {version} of collection {collection!r} is in use; switch to another one first")
        name = _versioned(self.alias(collection), version)
        await self._calls.run(lambda: self._client.delete_collection(name))

    async def namespaces(self, collection: str) -> list[str]:
        """The names of a collection's namespaces, sorted."""
        wanted = models.Filter(must=[any_of(NAMESPACE, [""])])
        name, found = self.target(collection), list[str]()
        after: models.ExtendedPointId | None = None
        while True:
            page = partial(self._client.scroll, name, wanted, limit=_PAGE, offset=after, with_payload=[NAME])
            try:
                records, after = await self._calls.run(page)
            except CollectionMissingError:
                return []
            found += [(record.payload or {})[NAME] for record in records]
            if after is None:
                return sorted(found)

    async def add_shards(self, collection: str, key: str) -> None:
        """Make the shards of a key, unless they are there."""
        name = self.target(collection)
        keys = await self._calls.run(lambda: self._client.list_shard_keys(name))
        if key not in {one.key for one in keys.shard_keys or []}:
            await self._calls.run(
                lambda: self._client.create_shard_key(
                    name, key, shards_number=self._options.shards, replication_factor=self._options.replicas
                )
            )

    async def remove_shards(self, collection: str, key: str) -> None:
        await self._calls.run(lambda: self._client.delete_shard_key(self.target(collection), key))

    async def indexed(self, name: str) -> set[str]:
        """The numeric metadata fields of a Qdrant collection that have an index."""
        info = await self._calls.run(lambda: self._client.get_collection(name))
        return {field for field in info.payload_schema if field.startswith(f"{NUMBERS}.")}

    # --- inside

    async def _exists(self, name: str) -> bool:
        return await self._calls.run(lambda: self._client.collection_exists(name))

    async def _make(self, spec: CollectionSpec, name: str) -> None:
        options = self._options
        vectors = models.VectorParams(size=spec.dimension, distance=_DISTANCES[spec.metric], on_disk=options.on_disk)
        try:
            await self._calls.run(
                lambda: self._client.create_collection(
                    name,
                    vectors_config={DENSE: vectors},
                    shard_number=options.shards,
                    sharding_method=models.ShardingMethod(options.sharding),
                    replication_factor=options.replicas,
                    write_consistency_factor=options.write_consistency,
                    on_disk_payload=True,
                    # one graph for each namespace, none across them: every search names its namespace
                    hnsw_config=models.HnswConfigDiff(m=0, payload_m=options.graph_links),
                    quantization_config=_quantization(options.quantization),
                )
            )
        except IndexUnavailableError:
            if not await self._exists(name):  # if it does, another process was faster, or this one's first try
                raise
        # at once: where a cluster has to agree on each, that is most of what making a collection takes
        await asyncio.gather(*(self.index(name, field, parameters) for field, parameters in _indexes().items()))

    async def index(
        self, name: str, field: str, parameters: models.KeywordIndexParams | models.IntegerIndexParams = _COMMITS
    ) -> None:
        """Index a payload field of a Qdrant collection; by default as integers to be compared."""
        await self._calls.run(
            lambda: self._client.create_payload_index(name, field, field_schema=parameters, wait=True)
        )

    async def _name(self, collection: str, version: int) -> None:
        alias = self.alias(collection)
        create = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=_versioned(alias, version), alias_name=alias)
        )
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        is_named = await self.live_version(collection) is not None
        operations: list[models.CreateAliasOperation | models.DeleteAliasOperation] = [create]
        if is_named:
            operations.insert(0, delete)
        await self._calls.run(lambda: self._client.update_collection_aliases(operations))

    async def _check(self, spec: CollectionSpec) -> None:
        name = self.target(spec.name)
        info = await self._calls.run(lambda: self._client.get_collection(name))
        vectors = info.config.params.vectors
        found = vectors.get(DENSE) if isinstance(vectors, dict) else None
        if found is None or (found.size, found.distance) != (spec.dimension, _DISTANCES[spec.metric]):
            raise DimensionMismatchError(
                f"Qdrant's collection {name!r} holds {found}, and not {spec.dimension} dimensions under "
                f"{spec.metric!r}; choose another collection or qdrant_prefix"
            )


def _versioned(alias: str, version: int) -> str:
    return f"{alias}-v{version}"


def _indexes() -> dict[str, models.KeywordIndexParams | models.IntegerIndexParams]:
    """The payload indexes of every collection. Only the tenant's makes graphs."""
    kind = models.KeywordIndexType.KEYWORD
    plain = models.KeywordIndexParams(type=kind, enable_hnsw=False)
    return {
        NAMESPACE: models.KeywordIndexParams(type=kind, is_tenant=True),
        ID: plain,
        GROUPS: plain,
        KEYWORDS: plain,
        BORN: _COMMITS,
        DIED: _COMMITS,
    }


def _quantization(kind: Quantization) -> models.QuantizationConfig | None:
    match kind:
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case "turbo":
            return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(always_ram=True))
    return None
