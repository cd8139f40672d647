"""Every setting of refdesk: read once at start from the environment (REFDESK_…) or the command line, then frozen.

`profile` chooses the defaults; a single setting overrides it. Unknown keys and bad combinations are refused at start.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Urls = Annotated[tuple[str, ...], NoDecode]  # comma-separated in the environment, not JSON
GPU: Mapping[str, object] = MappingProxyType(  # what that profile chooses where nothing else is said
    {"dense_index": "qdrant", "text_index": "opensearch"}
)
S3_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)
NOT_SETTINGS = frozenset({"REFDESK_FAULT"})  # read by server/faults.py, for tests alone


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="REFDESK_", frozen=True, extra="forbid", validate_default=True)

    profile: Literal["embedded", "gpu"] = Field(
        default="embedded",
        description="Chooses defaults: `gpu` those of `dense_index` (qdrant) and `text_index` (opensearch).",
    )
    data_dir: Path = Field(default=Path("data"), description="Where everything is kept: catalog, shards, models, keys.")
    role: Literal["all", "models"] = Field(
        default="all", description="`models`: a model node, which embeds and reranks for others and keeps no documents."
    )

    # models
    embedder: str = Field(default="all-MiniLM-L6-v2", description="Embedding model: a name, a folder, or `fake`.")
    reranker: str = Field(
        default="late-interaction", description="`late-interaction`, `none`, or a cross-encoder's name or folder."
    )
    generator: str = Field(
        default="extractive",
        description="`extractive`, `SmolLM2-135M-Instruct`, a GGUF file or OpenVINO folder, or `fake`.",
    )
    runtime: Literal["openvino", "torch"] = Field(
        default="openvino", description="What runs embedder and cross-encoder here; torch uses a GPU if there is one."
    )
    precision: Literal["auto", "int8", "bf16", "f32"] = Field(
        default="auto",
        description="The embedder: int8 where the CPU multiplies it fastest (AVX512_VNNI without AMX) and it changes "
        "the model's vectors little, which is tried at the start; it and the cross-encoder else bf16 where the device "
        "computes in it, else f32. torch has no int8.",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads for models; 0: as many as there are cores.")
    ingestion_priority: Literal["idle", "low"] = Field(
        default="idle",
        description="Of embedding passages in a server on the CPU: `idle` takes what searches, and other programs of "
        "its control group, leave; `low` a quarter at least, and searches beside it wait longer.",
    )
    ingestion_share: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="Of the cores, what searches that come without a pause leave to an ingestion that embeds on them: "
        "their answers are held, until 32 ms after the question at most; 0: never.",
    )
    batch_tokens: int = Field(default=4096, ge=64, description="Token budget of one embedding batch, padding counted.")

    # state: where it is kept if not in the data folder
    catalog_url: str = Field(
        default="",
        repr=False,
        description="`postgresql://user@host/database`, which several processes may share; empty: SQLite in the data "
        "folder.",
    )
    catalog_password_file: Path | None = Field(default=None, description="File that holds its password.")
    catalog_timeout_s: float = Field(default=5.0, gt=0, description="Deadline of one read of a PostgreSQL catalog.")
    keep_originals: bool = Field(default=True, description="Keep the bytes that documents were made of.")
    originals_url: str = Field(
        default="", description="Where they are kept: `s3://bucket/prefix`; empty: the data folder's `originals`."
    )
    s3_endpoint: str = Field(
        default="", description="The S3 server, such as `https://s3:9000`: of `originals_url`, and of `s3://` sources."
    )
    s3_region: str = Field(default="us-east-1", description="Its region, which goes into the requests' signatures.")
    s3_access_key_file: Path | None = Field(
        default=None, description="File that holds the access key's id; no key files: requests are not signed."
    )
    s3_secret_key_file: Path | None = Field(default=None, description="File that holds the secret access key.")
    s3_ca_file: Path | None = Field(default=None, description="Certificates (PEM) trusted instead of the system's.")
    s3_path_style: bool = Field(
        default=True, description="Buckets in the path, as most servers want it; else in the host name, as AWS does."
    )
    s3_timeout_s: float = Field(
        default=10.0, gt=0, description="How long the S3 server may be silent before an attempt, of three, has failed."
    )
    s3_encryption: Literal["none", "AES256", "aws:kms"] = Field(
        default="none", description="Encryption at rest that is asked of the S3 server for originals."
    )
    s3_kms_key: str = Field(default="", description="The key's id for `aws:kms`; empty: the bucket's.")
    # models elsewhere: nothing is called that is not named here
    embedder_urls: Urls = Field(
        default=(), description="Servers that embed, comma-separated: model nodes, vLLM, TEI, OpenAI; none: here."
    )
    embedder_api_key_file: Path | None = Field(default=None, description="File that holds their key.")
    embedder_vocabulary: Path | None = Field(
        default=None, description="The remote embedder's tokenizer.json or .tiktoken file, if its folder is not here."
    )
    embedding_inputs: int = Field(default=100, ge=1, le=2048, description="Passages a request to a remote embedder.")
    embedding_in_flight: int = Field(default=50, ge=1, description="Requests to a remote embedder at once.")
    embedding_requests_per_minute: float = Field(
        default=3000, gt=0, description="Requests of passages to a remote embedder a minute."
    )
    reranker_urls: Urls = Field(
        default=(),
        description="Servers that rerank, comma-separated: model nodes, vLLM, TEI; `reranker` names the model.",
    )
    reranker_api_key_file: Path | None = Field(default=None, description="File that holds their key.")
    generator_urls: Urls = Field(
        default=(),
        description="Servers that generate, comma-separated: replicas of vLLM, or OpenAI; `generator` names the model.",
    )
    generator_api_key_file: Path | None = Field(default=None, description="File that holds their key.")
    generator_vocabulary: Path | None = Field(
        default=None,
        description="The remote generator's folder, tokenizer.json or .tiktoken file; none: its server counts tokens.",
    )
    generator_context_length: int = Field(
        default=0, ge=0, description="Tokens that the remote generator takes in all; 0: what its server says."
    )
    node_key_file: Path | None = Field(
        default=None, description="File that holds the key which a model node asks of its callers."
    )

    redis_url: str = Field(
        default="",
        repr=False,
        description="`redis://host:6379/0`, where processes share cached searches and rate limits; empty: each has its "
        "own.",
    )
    redis_password_file: Path | None = Field(default=None, description="File that holds its password.")
    redis_timeout_ms: float = Field(
        default=100,
        gt=0,
        description="What a search waits for Redis at most; a slow one is left alone for a while.",
    )

    # jobs: uploads with `background=true`
    job_workers: int = Field(
        default=1, ge=0, description="Uploads in the background worked on at once by this process."
    )
    max_jobs: int = Field(default=100, ge=1, description="Uploads in the background that may wait; more get 429 …")
    max_job_bytes: int = Field(default=2 * 2**30, ge=1, description="… and so do more bytes than these in all.")

    # collections
    collection: str = Field(
        default="docs", pattern=r"^[a-z0-9][a-z0-9-]{0,44}$", description="The collection used when none is named."
    )
    language: str = Field(
        default="english", description="BM25's stemmer and stopwords for new collections; `none` for neither."
    )
    chunk_tokens: int = Field(
        default=0,
        ge=0,
        description="Tokens a chunk may have, context and special ones included; 0: min(512, the model's limit).",
    )
    chunk_overlap: float = Field(
        default=0.2, ge=0, le=0.5, description="Share of a chunk's tokens that the next one repeats."
    )
    retention_s: float = Field(
        default=7 * 86_400, ge=0, description="How long replaced versions stay readable, in seconds."
    )
    commit_documents: int = Field(default=256, ge=1, description="A commit closes after this many documents …")
    commit_interval_s: float = Field(default=1.0, gt=0, description="… or after this many seconds.")
    max_open_shards: int = Field(
        default=16, ge=1, description="Shards held open at once; the least recently used is closed."
    )
    max_upload_bytes: int = Field(default=100 * 2**20, ge=1, description="Largest file accepted, in bytes.")

    # the dense leg elsewhere: nothing is called that is not named here
    dense_index: Literal["edge", "qdrant", "faiss", "pinecone"] = Field(
        default="edge",
        description="Where vectors are kept: in this process (`edge`; `faiss`: exact, on a GPU if there is one), on a "
        "Qdrant cluster, on a Pinecone index.",
    )
    faiss_device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Where the `faiss` leg searches; `auto`: on a GPU if faiss finds one."
    )
    qdrant_url: str = Field(default="", description="Qdrant's REST address, such as `http://qdrant:6333`.")
    qdrant_grpc_port: int = Field(
        default=6334, ge=0, le=65_535, description="The gRPC port beside it, which is used for requests; 0: REST is."
    )
    qdrant_api_key_file: Path | None = Field(default=None, description="File that holds Qdrant's key.")
    qdrant_ca_file: Path | None = Field(
        default=None, description="Certificates (PEM) trusted for Qdrant instead of the system's."
    )
    qdrant_timeout_s: float = Field(default=30.0, gt=0, description="Deadline of one request to Qdrant, in seconds.")
    qdrant_prefix: str = Field(
        default="refdesk-", pattern=r"^[a-z0-9-]*$", description="Begins the names of collections in Qdrant."
    )
    qdrant_shards: int = Field(default=1, ge=1, description="Shards of a new collection; a namespace's, if custom.")
    qdrant_replicas: int = Field(default=1, ge=1, description="Copies of each shard of a new collection.")
    qdrant_write_consistency: int = Field(
        default=1, ge=1, description="Copies that must have applied a write for it to succeed, in a new collection."
    )
    qdrant_sharding: Literal["auto", "custom"] = Field(
        default="auto", description="`custom`: shards of its own for each namespace of a new collection."
    )
    qdrant_quantization: Literal["none", "scalar", "binary", "turbo"] = Field(
        default="scalar", description="Quantisation of a new collection's vectors; hits are rescored by the full ones."
    )
    qdrant_oversampling: float = Field(
        default=0.0,
        ge=0,
        description="Candidates that quantised vectors choose, for each hit; 0: 8 for `binary`, 2 for the others.",
    )
    qdrant_on_disk: bool = Field(default=False, description="Keep a new collection's full vectors on disk only.")
    qdrant_graph_links: int = Field(
        default=16, ge=4, description="Links of a vector in a new collection's HNSW graphs."
    )
    qdrant_search_width: int = Field(default=128, ge=1, description="Width of a search in the HNSW graph (ef).")
    qdrant_batches: int = Field(default=4, ge=1, description="Batches of 256 points on the way to Qdrant at once.")
    pinecone_url: str = Field(default="", description="The Pinecone index's host, such as `https://….pinecone.io`.")
    pinecone_api_key_file: Path | None = Field(default=None, description="File that holds Pinecone's key.")
    pinecone_timeout_s: float = Field(
        default=30.0, gt=0, description="Deadline of one request to Pinecone, in seconds."
    )

    # the text leg on OpenSearch
    text_index: Literal["edge", "opensearch"] = Field(
        default="edge", description="What answers BM25: the engine in this process, or an OpenSearch cluster."
    )
    opensearch_urls: Urls = Field(
        default=(), description="Nodes of the cluster, comma-separated, such as `https://opensearch:9200`."
    )
    opensearch_user: str = Field(default="", description="Who we are to the cluster; empty: it asks for nobody.")
    opensearch_password_file: Path | None = Field(default=None, description="File that holds that user's password.")
    opensearch_ca_file: Path | None = Field(
        default=None, description="Certificate authority of an https cluster; none: those of the system."
    )
    opensearch_timeout_s: float = Field(default=30.0, gt=0, description="Deadline of one request to the cluster.")
    opensearch_prefix: str = Field(
        default="refdesk",
        pattern=r"^[a-z0-9][a-z0-9-]{0,44}$",
        description="What names of indices, aliases and the template begin with.",
    )
    opensearch_own_indices: int = Field(
        default=100, ge=0, description="Namespaces that get an index of their own; further ones share indices."
    )
    opensearch_shards: int = Field(default=1, ge=1, le=1024, description="Primary shards of a new index.")
    opensearch_replicas: int = Field(default=1, ge=0, description="Replicas of a new index's shards.")
    opensearch_analysis: Literal["refdesk", "opensearch"] = Field(
        default="refdesk",
        description="Who cuts the texts of new namespaces into terms: refdesk, as in the embedded profile, or the "
        "cluster's analyser of the language.",
    )

    # search
    leg_top_k: int = Field(default=200, ge=1, le=1000, description="Hits (chunks) asked of each leg.")
    rrf_k: int = Field(default=60, ge=1, description="The constant of reciprocal rank fusion.")
    fused_top_k: int = Field(default=50, ge=1, le=1000, description="Fused hits that are reranked.")
    top_k: int = Field(default=10, ge=1, le=100, description="Hits returned when the request does not say.")
    rerank_budget_ms: float = Field(default=100, gt=0, description="Time a cross-encoder may take; its depth follows.")
    leg_timeout_s: float = Field(
        default=5.0,
        gt=0,
        description="Deadline of one leg, the question's embedding included; the other answers alone after it.",
    )
    max_question_chars: int = Field(default=8192, ge=1, description="Longer questions are refused.")
    max_concurrent: int = Field(default=64, ge=1, description="Requests worked on at once; more get 429.")

    # answers
    context_tokens: int = Field(default=4000, ge=64, description="Most tokens of passages in a prompt.")
    context_share: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="Share of the hits' tokens that is placed: the best three whole, of the rest key sentences.",
    )
    max_tokens: int = Field(default=512, ge=1, description="Most tokens of an answer when the request does not say.")
    temperature: float = Field(
        default=0.2, ge=0, le=2, description="Sampling temperature when the request does not say."
    )
    generation_timeout_s: float = Field(default=60.0, gt=0, description="Deadline of one generation.")
    near_duplicate: float = Field(default=0.95, gt=0, le=1, description="Cosine above which a passage repeats another.")

    # cache
    cache_entries: int = Field(
        default=10_000, ge=0, description="Searches kept in memory; 0: none (Redis keeps its own)."
    )
    cache_ttl_s: float = Field(default=3600.0, gt=0, description="How long a cached search may be used, in seconds.")

    # the server
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")
    keys_required: bool = Field(default=True, description="Refuse requests without a key.")
    requests_per_minute: float = Field(
        default=0, ge=0, description="Requests of a key that has no limit of its own; 0: no limit."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, given: object) -> object:
        """The profile's defaults, where nothing else is said."""
        return {**GPU, **given} if isinstance(given, dict) and given.get("profile") == "gpu" else given

    @field_validator("opensearch_urls", "embedder_urls", "reranker_urls", "generator_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_opensearch(self) -> Self:
        for url in self.opensearch_urls:
            if not url.startswith(("http://", "https://")) or "@" in url:
                raise ValueError(
                    f"opensearch_urls: {url.split('@')[-1]!r} is no http(s)://host:port; who we are is said "
                    "in opensearch_user and opensearch_password_file."
                )
        if (self.text_index == "opensearch") != bool(self.opensearch_urls):
            raise ValueError(
                f"text_index={self.text_index!r} with opensearch_urls={self.opensearch_urls!r}: each needs the other."
            )
        if bool(self.opensearch_user) != bool(self.opensearch_password_file):
            raise ValueError("opensearch_user and opensearch_password_file go together: name both or neither.")
        return self

    @model_validator(mode="after")
    def _check_dense_index(self) -> Self:
        if self.dense_index == "qdrant" and not self.qdrant_url:
            raise ValueError("dense_index='qdrant' needs qdrant_url: say where Qdrant is.")
        if self.dense_index == "pinecone" and not (self.pinecone_url and self.pinecone_api_key_file):
            raise ValueError("dense_index='pinecone' needs pinecone_url and pinecone_api_key_file.")
        for name in ("qdrant", "pinecone"):
            if self.dense_index != name and getattr(self, f"{name}_url"):
                raise ValueError(f"{name}_url with dense_index={self.dense_index!r}: name it there, or leave both out.")
        if self.qdrant_write_consistency > self.qdrant_replicas:
            raise ValueError(
                f"qdrant_write_consistency={self.qdrant_write_consistency} exceeds qdrant_replicas="
                f"{self.qdrant_replicas}: no write could succeed."
            )
        return self

    @model_validator(mode="after")
    def _check_s3(self) -> Self:
        if self.originals_url and not S3_URL.fullmatch(self.originals_url):
            raise ValueError(f"originals_url={self.originals_url!r} is no s3://bucket or s3://bucket/prefix.")
        if self.originals_url and not self.s3_endpoint:
            raise ValueError("originals_url needs s3_endpoint: say where the S3 server is.")
        if self.s3_endpoint and not re.fullmatch(r"https?://[^/@?#]+/?", self.s3_endpoint):
            raise ValueError(f"s3_endpoint: {self.s3_endpoint.split('@')[-1]!r} is no http(s)://host:port.")
        if bool(self.s3_access_key_file) != bool(self.s3_secret_key_file):
            raise ValueError("s3_access_key_file and s3_secret_key_file go together: name both or neither.")
        if self.s3_kms_key and self.s3_encryption != "aws:kms":
            raise ValueError(f"s3_kms_key with s3_encryption={self.s3_encryption!r}: it is for 'aws:kms'.")
        return self

    @model_validator(mode="after")
    def _check_remote(self) -> Self:
        for name in ("embedder", "reranker", "generator"):
            urls: tuple[str, ...] = getattr(self, f"{name}_urls")
            with_urls = [f"{name}_{of}" for of in ("api_key_file", "vocabulary", "context_length")]
            given = [one for one in with_urls if getattr(self, one, None)]
            if given and not urls:
                raise ValueError(f"{', '.join(given)} without {name}_urls: say which server is meant.")
            if urls and self.role == "models":
                raise ValueError(f"{name}_urls with role='models': a model node runs its models itself.")
        if self.generator_urls and self.generator in {"extractive", "fake"}:
            raise ValueError(
                f"generator_urls with generator={self.generator!r}: name the model that the server serves."
            )
        if self.reranker_urls and self.reranker in {"late-interaction", "none"}:
            raise ValueError(f"reranker_urls with reranker={self.reranker!r}: name the model that the server serves.")
        if self.node_key_file and self.role != "models":
            raise ValueError("node_key_file without role='models': keys of a desk are in its catalog.")
        if self.role == "models" and self.keys_required and not self.node_key_file:
            raise ValueError("role='models' needs node_key_file, which its callers' api_key_file repeats.")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = {f"REFDESK_{name.upper()}" for name in type(self).model_fields} | NOT_SETTINGS
        unknown = sorted(name for name in os.environ if name.startswith("REFDESK_") and name not in known)
        if unknown:
            raise ValueError(f"unknown settings in the environment: {', '.join(unknown)}; docs/settings.md lists them")
        if not self.keys_required and self.host not in {"127.0.0.1", "localhost", "::1"}:
            raise ValueError(
                f"keys_required=false is refused with host={self.host!r}: anyone who reaches the port could read and "
                "delete everything. Listen on 127.0.0.1, or leave keys on."
            )
        if self.top_k > self.fused_top_k:
            raise ValueError(f"top_k={self.top_k} exceeds fused_top_k={self.fused_top_k}: raise the latter.")
        return self
