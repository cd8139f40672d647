"""Documents know the object that keeps their source's bytes, and the mark that their source had when it was read."""

from alembic import op
from sqlalchemy import Column, Float, Text, text

revision = "5"
down_revision = "4"


def upgrade() -> None:
    words = Text().with_variant(Text(collation="C"), "postgresql")
    for name in ("original", "source_mark"):
        op.add_column("documents", Column(name, words, nullable=False, server_default=text("''")))
    op.create_index("documents_by_original", "documents", ["original"])
    op.create_table("lost_originals", Column("name", words, primary_key=True), Column("lost_at", Float, nullable=False))
    op.create_table("desks", Column("id", words, primary_key=True))
