"""The tables as they were first, written out: what came later is in the migrations that follow."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

revision = "1"
down_revision = None

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
KEY = BigInteger().with_variant(Integer(), "sqlite")
metadata = MetaData()


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)


def _part_of(column: str) -> ForeignKey:
    return ForeignKey(column, ondelete="CASCADE", deferrable=True, initially="DEFERRED")


Table("schema_info", metadata, Column("version", Integer, primary_key=True))

Table(
    "collections",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("name", TEXT, nullable=False, unique=True),
    Column("dimension", Integer, nullable=False),
    Column("metric", TEXT, nullable=False),
    Column("language", TEXT, nullable=False),
    Column("embedder", TEXT, nullable=False),
    Column("embedder_fingerprint", TEXT, nullable=False),
    Column("chunking", TEXT, nullable=False),
    Column("created_at", Float, nullable=False),
)

Table(
    "namespaces",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("collection_key", KEY, _part_of("collections.key"), nullable=False),
    Column("name", TEXT, nullable=False),
    Column("commit_number", Integer, nullable=False),
    Column("pending", Integer),
    Column("swept", Integer, nullable=False),
    Column("sweeping", Boolean, nullable=False),
    Column("dropping", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("collection_key", "name"),
)

Table(
    "commits",
    metadata,
    Column("namespace_key", KEY, _part_of("namespaces.key"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("committed_at", Float, nullable=False),
)

Table(
    "documents",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("namespace_key", KEY, _part_of("namespaces.key"), nullable=False),
    Column("uri", TEXT, nullable=False),
    Column("version_key", KEY, nullable=False),
    Column("media_type", TEXT, nullable=False),
    Column("source_sha256", TEXT, nullable=False),
    Column("extractor", TEXT, nullable=False),
    Column("metadata", TEXT, nullable=False),
    Column("groups", TEXT, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("namespace_key", "uri"),
)

Table(
    "versions",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("document_id", TEXT, _part_of("documents.id"), nullable=False),
    Column("version", TEXT, nullable=False),
    Column("title", TEXT, nullable=False),
    Column("marks", TEXT, nullable=False),
    Column("chunking", TEXT, nullable=False),
    Column("size_chars", Integer, nullable=False),
    Column("total_chunks", Integer, nullable=False),
    UniqueConstraint("document_id", "version"),
)

lives = Table(
    "lives",
    metadata,
    Column("version_key", KEY, _part_of("versions.key"), primary_key=True),
    Column("born", Integer, primary_key=True),
    Column("died", Integer),
    Column("namespace_key", KEY, nullable=False),
)
Index(
    "lives_by_death",
    lives.c.namespace_key,
    lives.c.died,
    sqlite_where=lives.c.died.is_not(None),
    postgresql_where=lives.c.died.is_not(None),
)

Table(
    "text_blocks",
    metadata,
    Column("version_key", KEY, _part_of("versions.key"), primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("text", TEXT, nullable=False),
)

Table(
    "chunks",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("version_key", KEY, _part_of("versions.key"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("start_char", Integer, nullable=False),
    Column("end_char", Integer, nullable=False),
    Column("page", Integer),
    Column("heading_path", TEXT, nullable=False),
    Column("token_count", Integer, nullable=False),
    UniqueConstraint("version_key", "number"),
)

Table(
    "token_vectors",
    metadata,
    Column("version_key", KEY, _part_of("versions.key"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("fingerprint", TEXT, nullable=False),
    Column("token_count", Integer, nullable=False),
    Column("bits", LargeBinary, nullable=False),
)

Table(
    "keys",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("sha256", TEXT, nullable=False, unique=True),
    Column("name", TEXT, nullable=False),
    Column("roles", TEXT, nullable=False),
    Column("namespaces", TEXT),
    Column("groups", TEXT),
    Column("expires_at", Float),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)

Table(
    "failures",
    metadata,
    Column("namespace_key", KEY, _part_of("namespaces.key"), primary_key=True),
    Column("uri", TEXT, primary_key=True),
    Column("reason", TEXT, nullable=False),
    Column("detail", TEXT, nullable=False),
    Column("failed_at", Float, nullable=False),
)

Table(
    "purges",
    metadata,
    Column("namespace_key", KEY, _part_of("namespaces.key"), primary_key=True),
    Column("document_id", TEXT, primary_key=True),
    Column("chunk_ids", TEXT, nullable=False),
)

Table(
    "tombstones",
    metadata,
    Column("document_id", TEXT, primary_key=True),
    Column("collection", TEXT, nullable=False),
    Column("namespace", TEXT, nullable=False),
    Column("deleted_at", Float, nullable=False),
)
