"""Several processes may write: who is writing a commit, and when a namespace's present commit became that.

The version of the schema moves from a table of its own into Alembic's.
"""

from alembic import op
from sqlalchemy import Column, Float, Text, text

revision = "2"
down_revision = "1"

COMMITTED = (
    "UPDATE namespaces SET committed_at = coalesce("
    "(SELECT max(commits.committed_at) FROM commits WHERE commits.namespace_key = namespaces.key), created_at)"
)


def upgrade() -> None:
    pending_by = Text().with_variant(Text(collation="C"), "postgresql")
    op.add_column("namespaces", Column("committed_at", Float, nullable=False, server_default=text("0")))
    op.add_column("namespaces", Column("pending_by", pending_by))
    op.execute(COMMITTED)
    op.drop_table("schema_info")
