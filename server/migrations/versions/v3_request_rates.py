"""A key may have a limit of requests a minute of its own."""

from alembic import op
from sqlalchemy import Column, Float

revision = "3"
down_revision = "2"


def upgrade() -> None:
    op.add_column("keys", Column("requests_per_minute", Float))
