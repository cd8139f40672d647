"""What the catalog knows of originals: which objects documents refer to, and which their store must forget."""

import secrets
import time
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from server.tables import desks, documents, lost_originals

BATCH = 500  # names in one statement


def desk_id(connection: Connection) -> str:
    """This catalog's id, drawn when it is first asked for."""
    found = connection.execute(select(desks.c.id)).scalar_one_or_none()
    if found is None:
        found = secrets.token_hex(8)
        connection.execute(insert(desks).values(id=found))
    return found


def lose(connection: Connection, names: Iterable[str]) -> None:
    """Note objects that no document refers to from this transaction on."""
    rows = [{"name": name, "lost_at": time.time()} for name in dict.fromkeys(names) if name]
    if rows:
        connection.execute(insert(lost_originals), rows)


def lost(connection: Connection, limit: int) -> list[str]:
    """Up to `limit` names of objects that their store must forget."""
    return list(connection.execute(select(lost_originals.c.name).limit(limit)).scalars())


def forget(connection: Connection, names: Sequence[str]) -> None:
    """They are gone from their store."""
    if names:
        gone = delete(lost_originals).where(lost_originals.c.name == bindparam("name_"))
        connection.execute(gone, [{"name_": name} for name in names])


def referred_to(connection: Connection, names: Sequence[str]) -> set[str]:
    """Of these objects, those that a document refers to."""
    found: set[str] = set()
    for at in range(0, len(names), BATCH):
        some = select(documents.c.original).where(documents.c.original.in_(names[at : at + BATCH]))
        found.update(connection.execute(some).scalars())
    return found


def below(connection: Connection, folder: str) -> set[str]:
    """The objects in a folder that documents refer to."""
    name = documents.c.original
    inside = (name >= f"{folder}/") & (name <= f"{folder}/~")  # of [0-9a-f/-] alone; BETWEEN takes no collation
    return set(connection.execute(select(name).where(inside)).scalars())


def miss(connection: Connection, names: Sequence[str]) -> int:
    """Their store does not have these objects: documents no longer refer to them, and say so to their next ingestion;
    returns how many did."""
    one = update(documents).where(documents.c.original == bindparam("name_")).values(original="", source_mark="")
    return sum(connection.execute(one, {"name_": name}).rowcount for name in names)
