"""The catalog's schema: made if the database is empty, brought up to date by Alembic if an older refdesk made it.

A catalog that is up to date costs two statements, and Alembic is not even imported.
"""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from server import tables
from server.base import ConflictError

HEAD = "5"  # the newest of server/migrations/versions
FIRST = "1"  # catalogs of this version do not say so in Alembic's table, but in one called schema_info

version_table = Table(  # as Alembic makes it
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def prepare(connection: Connection) -> None:
    """Make the schema, or migrate it, in the connection's transaction. Raises ConflictError for a newer one."""
    found = version(connection)
    if found is None:
        tables.metadata.create_all(connection, checkfirst=False)
        version_table.create(connection)
        connection.execute(insert(version_table).values(version_num=HEAD))
    elif found != HEAD:
        migrate(connection, found)


def version(connection: Connection) -> str | None:
    """The schema version that the database has; None if it is empty."""
    inspector = inspect(connection)
    if inspector.has_table(version_table.name):
        found: str = connection.execute(select(version_table.c.version_num)).scalar_one()
        return found
    return FIRST if inspector.has_table("schema_info") else None


def migrate(connection: Connection, found: str | None, to: str = HEAD) -> None:
    """Run the migrations from one version to another, of an empty database all of them. Raises ConflictError."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConflictError(
            f"the catalog has schema version {found}, and this refdesk reads up to {HEAD}: use the release that wrote "
            "it, or ingest into a new catalog"
        )
    if found == FIRST and not inspect(connection).has_table(version_table.name):
        version_table.create(connection)
        connection.execute(insert(version_table).values(version_num=found))
    command.upgrade(config, to)
