"""Uploads that are worked on after their answer: jobs, and the bytes they wait with."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Integer, LargeBinary, Text

revision = "4"
down_revision = "3"

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
KEY = BigInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        Column("key", KEY, primary_key=True),
        Column("id", TEXT, nullable=False, unique=True),
        Column("state", TEXT, nullable=False),
        Column("collection", TEXT, nullable=False),
        Column("namespace", TEXT, nullable=False),
        Column("groups", TEXT, nullable=False),
        Column("metadata", TEXT, nullable=False),
        Column("files", TEXT, nullable=False),
        Column("size_bytes", BigInteger, nullable=False),
        Column("created_by", TEXT, nullable=False),
        Column("created_at", Float, nullable=False),
        Column("started_at", Float),
        Column("finished_at", Float),
        Column("worker", TEXT),
        Column("beats", Integer, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("cancelling", Boolean, nullable=False),
        Column("progress", TEXT, nullable=False),
        Column("receipt", TEXT),
        Column("error", TEXT),
    )
    part_of = ForeignKey("jobs.key", ondelete="CASCADE", deferrable=True, initially="DEFERRED")
    op.create_table(
        "job_blocks",
        Column("job_key", KEY, part_of, primary_key=True),
        Column("file", Integer, primary_key=True),
        Column("block", Integer, primary_key=True),
        Column("data", LargeBinary, nullable=False),
    )
