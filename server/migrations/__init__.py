"""Migrations of the catalog, by Alembic. server/schema.py runs them; a fresh catalog needs none of them."""
