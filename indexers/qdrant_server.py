"""How a Qdrant server is reached."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from qdrant_client import AsyncQdrantClient

from indexers.base import IndexUnavailableError

_GRPC = {
    "grpc.enable_http_proxy": 0,
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 1,
    # gRPC's own would let a server that was down for a while wait for two minutes after it is back
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 2_000,
}


@dataclass(frozen=True, slots=True)
class QdrantServer:
    """`url` is that of the REST port; requests go to the gRPC port beside it unless `grpc_port` is 0. With https,
    `ca_file` holds the certificates (PEM) to trust instead of the system's."""

    url: str
    grpc_port: int = 6334
    api_key: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout_s: float = 30.0

    def client(self) -> AsyncQdrantClient:
        """A client; nothing is sent yet. Raises IndexUnavailableError if the URL is none or the file unreadable."""
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise IndexUnavailableError(f"qdrant_url {self.url!r} is no URL such as 'http://qdrant:6333'")
        try:
            ca = self.ca_file.read_bytes() if self.ca_file else None
        except OSError as exc:
            raise IndexUnavailableError(f"qdrant_ca_file cannot be read: {exc}") from exc
        return AsyncQdrantClient(
            url=self.url,
            port=urlsplit(self.url).port or 6333,
            grpc_port=self.grpc_port or 6334,
            prefer_grpc=self.grpc_port > 0,
            api_key=self.api_key,
            timeout=max(1, round(self.timeout_s)),
            grpc_options=_GRPC | ({"root_certificates": ca} if ca else {}),
            check_compatibility=False,  # it would write to the log from a thread of its own
            verify=str(self.ca_file) if self.ca_file else True,
            trust_env=False,
        )
