"""Runs the migrations that server/schema.py asks for, in the transaction of the connection that it hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
