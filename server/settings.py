"""Every setting of refdesk: read once at start from the environment (REFDESK_…) or the command line, then frozen.

`profile` chooses the defaults; a single setting overrides it. Unknown keys and bad combinations are refused at start.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.base import InvalidRequestError

Urls = Annotated[tuple[str, ...], NoDecode]  # comma-separated in the environment, not JSON
NOT_SETTINGS = frozenset({"REFDESK_FAULT"})  # read by server/faults.py, for tests alone


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="REFDESK_", frozen=True, extra="forbid", validate_default=True)

    profile: Literal["embedded"] = Field(default="embedded", description="Chooses all defaults. `gpu` comes later.")
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
    precision: Literal["auto", "bf16", "f32"] = Field(
        default="auto", description="bf16 where the device computes in it, else f32."
    )
    threads: int = Field(default=0, ge=0, description="CPU threads for models; 0: as many as there are cores.")
    batch_tokens: int = Field(default=4096, ge=64, description="Token budget of one embedding batch, padding counted.")

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

    # search
    leg_top_k: int = Field(default=200, ge=1, le=1000, description="Hits (chunks) asked of each leg.")
    rrf_k: int = Field(default=60, ge=1, description="The constant of reciprocal rank fusion.")
    fused_top_k: int = Field(default=50, ge=1, le=1000, description="Fused hits that are reranked.")
    top_k: int = Field(default=10, ge=1, le=100, description="Hits returned when the request does not say.")
    rerank_budget_ms: float = Field(default=100, gt=0, description="Time a cross-encoder may take; its depth follows.")
    leg_timeout_s: float = Field(
        default=5.0, gt=0, description="Deadline of one leg; the other answers alone after it."
    )
    max_question_chars: int = Field(default=8192, ge=1, description="Longer questions are refused.")
    max_concurrent: int = Field(default=64, ge=1, description="Requests worked on at once; more get 429.")

    # answers
    context_tokens: int = Field(default=4000, ge=64, description="Most tokens of passages in a prompt.")
    max_tokens: int = Field(default=512, ge=1, description="Most tokens of an answer when the request does not say.")
    temperature: float = Field(
        default=0.2, ge=0, le=2, description="Sampling temperature when the request does not say."
    )
    generation_timeout_s: float = Field(default=60.0, gt=0, description="Deadline of one generation.")
    near_duplicate: float = Field(default=0.95, gt=0, le=1, description="Cosine above which a passage repeats another.")

    # cache
    cache_entries: int = Field(default=10_000, ge=0, description="Searches kept in memory; 0 switches the cache off.")
    cache_ttl_s: float = Field(default=3600.0, gt=0, description="How long a cached search may be used, in seconds.")

    # the server
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")
    keys_required: bool = Field(default=True, description="Refuse requests without a key.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")

    @field_validator("embedder_urls", "reranker_urls", "generator_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

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


def read_secret(file: Path | None) -> str | None:
    """What a key file holds, white space around it left out. Raises InvalidRequestError for one without a key."""
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequestError(f"the key file {str(file)!r} cannot be read: {exc}") from exc
    if not secret:
        raise InvalidRequestError(f"the key file {str(file)!r} is empty: it must hold the key")
    return secret


def as_markdown() -> str:
    """docs/settings.md: every setting with its default. `python -m server.settings > docs/settings.md` writes it."""
    rows = [
        f"| `REFDESK_{name.upper()}` | `{field.default}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Read once at start from the environment, then frozen. An unknown name or a bad combination is refused.",
            "This page is written by `python -m server.settings`.",
            "",
            "| variable | default | what it does |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(as_markdown(), end="")
