"""The catalog's tables, in words that SQLite and PostgreSQL both know.

A version's content (its text in blocks, its chunks, their token vectors) is written once and never changed; when it
was visible is kept apart, as lives: commits [born, died). A text that comes back begins a second life.
"""

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
    text,
)

TEXT_BLOCK_CHARS = 4096  # code points a block: a span is read without loading its document
TEXT = Text().with_variant(Text(collation="C"), "postgresql")  # ordered by code point, as in SQLite
KEY = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows of an INTEGER PRIMARY KEY only

metadata = MetaData()


def _part_of(column: str) -> ForeignKey:
    """A reference whose row goes with what it belongs to; checked at the end of the transaction."""
    return ForeignKey(column, ondelete="CASCADE", deferrable=True, initially="DEFERRED")


collections = Table(
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

namespaces = Table(
    "namespaces",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("collection_key", KEY, _part_of("collections.key"), nullable=False),
    Column("name", TEXT, nullable=False),
    Column("commit_number", Integer, nullable=False),  # E: what a search reads at
    Column("pending", Integer),  # E + 1 while a commit is being written: the index may hold stamps above E
    Column("swept", Integer, nullable=False),  # commits below this one can no longer be read
    Column("sweeping", Boolean, nullable=False),  # a sweep up to `swept` was begun and is not finished
    Column("dropping", Boolean, nullable=False),  # a drop was begun: invisible, and finished before anything else
    Column("created_at", Float, nullable=False),
    Column("committed_at", Float, nullable=False, server_default=text("0")),  # when E became the present commit
    Column("pending_by", TEXT),  # who writes it: a writer that lost its lease must not finish what another began
    UniqueConstraint("collection_key", "name"),
)

commits = Table(
    "commits",
    metadata,
    Column("namespace_key", KEY, _part_of("namespaces.key"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("committed_at", Float, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("namespace_key", KEY, _part_of("namespaces.key"), nullable=False),
    Column("uri", TEXT, nullable=False),
    Column("version_key", KEY, nullable=False),  # the present version
    Column("media_type", TEXT, nullable=False),
    Column("source_sha256", TEXT, nullable=False),  # "" asks for the document to be ingested again
    Column("extractor", TEXT, nullable=False),
    Column("metadata", TEXT, nullable=False),  # JSON object
    Column("groups", TEXT, nullable=False),  # JSON list
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("original", TEXT, nullable=False, server_default=text("''")),  # object of the source's bytes; '': none
    Column("source_mark", TEXT, nullable=False, server_default=text("''")),  # an S3 object's ETag and size
    UniqueConstraint("namespace_key", "uri"),
)
Index("documents_by_original", documents.c.original)

versions = Table(
    "versions",
    metadata,
    Column("key", KEY, primary_key=True),
    Column("document_id", TEXT, _part_of("documents.id"), nullable=False),
    Column("version", TEXT, nullable=False),
    Column("title", TEXT, nullable=False),
    Column("marks", TEXT, nullable=False),  # JSON list of [kind, start, level, text]
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

text_blocks = Table(
    "text_blocks",
    metadata,
    Column("version_key", KEY, _part_of("versions.key"), primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("text", TEXT, nullable=False),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("version_key", KEY, _part_of("versions.key"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("start_char", Integer, nullable=False),
    Column("end_char", Integer, nullable=False),
    Column("page", Integer),
    Column("heading_path", TEXT, nullable=False),  # JSON list
    Column("token_count", Integer, nullable=False),
    UniqueConstraint("version_key", "number"),
)

token_vectors = Table(
    "token_vectors",
    metadata,
    Column("version_key", KEY, _part_of("versions.key"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("fingerprint", TEXT, nullable=False),  # of the embedding model
    Column("token_count", Integer, nullable=False),  # special tokens included
    Column("bits", LargeBinary, nullable=False),  # token_count rows of dimension / 8 bytes
)

keys = Table(
    "keys",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("sha256", TEXT, nullable=False, unique=True),  # of the key; the key itself is never stored
    Column("name", TEXT, nullable=False),
    Column("roles", TEXT, nullable=False),  # JSON list
    Column("namespaces", TEXT),  # JSON list of "collection:namespace"; null: all
    Column("groups", TEXT),  # JSON list; null: every document, whatever its ACL
    Column("expires_at", Float),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("requests_per_minute", Float),  # null: as many as the setting says
)

failures = Table(
    "failures",
    metadata,
    Column("namespace_key", KEY, _part_of("namespaces.key"), primary_key=True),
    Column("uri", TEXT, primary_key=True),
    Column("reason", TEXT, nullable=False),
    Column("detail", TEXT, nullable=False),
    Column("failed_at", Float, nullable=False),
)

purges = Table(
    "purges",
    metadata,
    Column("namespace_key", KEY, _part_of("namespaces.key"), primary_key=True),
    Column("document_id", TEXT, primary_key=True),
    Column("chunk_ids", TEXT, nullable=False),  # JSON list: what the index must still forget
)

lost_originals = Table(  # no document refers to them any more: their store must forget them
    "lost_originals",
    metadata,
    Column("name", TEXT, primary_key=True),
    Column("lost_at", Float, nullable=False),
)

desks = Table(  # one row: what sets this catalog's objects apart in a store that others use too
    "desks",
    metadata,
    Column("id", TEXT, primary_key=True),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("document_id", TEXT, primary_key=True),
    Column("collection", TEXT, nullable=False),
    Column("namespace", TEXT, nullable=False),
    Column("deleted_at", Float, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("key", KEY, primary_key=True),  # in the order of arrival
    Column("id", TEXT, nullable=False, unique=True),
    Column("state", TEXT, nullable=False),  # one of catalog_jobs.State
    Column("collection", TEXT, nullable=False),
    Column("namespace", TEXT, nullable=False),
    Column("groups", TEXT, nullable=False),  # JSON list
    Column("metadata", TEXT, nullable=False),  # JSON object
    Column("files", TEXT, nullable=False),  # JSON list of [uri, media type]
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_by", TEXT, nullable=False),  # a key's id
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("worker", TEXT),  # who took it: another name each time it is taken
    Column("beats", Integer, nullable=False),  # grows while somebody is at it
    Column("attempts", Integer, nullable=False),
    Column("cancelling", Boolean, nullable=False),
    Column("progress", TEXT, nullable=False),  # JSON object of counts
    Column("receipt", TEXT),  # JSON, once it succeeded
    Column("error", TEXT),  # JSON, once it failed
)

job_blocks = Table(
    "job_blocks",
    metadata,
    Column("job_key", KEY, _part_of("jobs.key"), primary_key=True),
    Column("file", Integer, primary_key=True),
    Column("block", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
