"""`refdesk delete`: documents by id, by uri or by a filter, or a namespace with all of them."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from indexers.bounded import slices
from server.base import InvalidRequestError
from server.cli import Collection, json_object, run, settings_of
from server.cli_view import out
from server.client import DeskClient, Json, open_client

BATCH = 1000  # as many as a request may name
SHOWN = 5  # documents that are named when it is asked whether they shall go


def delete(
    ctx: typer.Context,
    collection: Collection = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Default: `default`.")] = None,
    id_: Annotated[list[str] | None, typer.Option("--id", help="A document's id. Repeatable.")] = None,
    uri: Annotated[list[str] | None, typer.Option(help="A document's uri, as listed. Repeatable.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="Metadata filter, as JSON.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Drop the namespace: all of it, and jobs that wait.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete documents for good: every version, vector and quote of them, and their originals."""
    if sum(map(bool, (id_, uri, filter_ is not None, all_))) != 1:
        raise InvalidRequestError("give exactly one of --id, --uri, --filter and --all: what is to go?")
    settings = settings_of(ctx)
    place: Json = {"collection": collection or settings.collection, "namespace": namespace or "default"}
    named = list(dict.fromkeys(id_ or uri or ()))
    bodies: list[Json] = [{"ids" if id_ else "uris": some} for some in slices(named, BATCH)]
    if filter_ is not None:
        bodies = [{"filter": json_object(filter_, "--filter")}]
    if not yes:
        of_named = ", ".join(named) if len(named) <= SHOWN else f"{len(named):,} documents"
        what = "all" if all_ else of_named or f"what meets {filter_}"
        typer.confirm(f"Delete {what} in {place['collection']}:{place['namespace']} for good?", abort=True, err=True)

    async def work() -> None:
        async with open_client(settings, "refdesk delete") as client:
            deleted = await _drop(client, place) if all_ else await _delete(client, place, bodies)
        missing = len(named) - deleted if named else 0
        also = f", and the namespace {place['namespace']!r}" if all_ else f", {missing:,} not there" if missing else ""
        out.print(f"{deleted:,} deleted{also}", style="green", markup=False)

    run(work())


async def _delete(client: DeskClient, place: Json, bodies: Sequence[Json]) -> int:
    replies = [await client.call("POST", "/v1/documents/delete", {**place, **body}) for body in bodies]
    return sum(reply["deleted"] for reply in replies)


async def _drop(client: DeskClient, place: Json) -> int:
    """Drop a namespace; returns how many documents it held before."""
    collections = (await client.call("GET", "/v1/status"))["collections"]
    spaces = [space for one in collections if one["name"] == place["collection"] for space in one["namespaces"]]
    await client.call("DELETE", f"/v1/namespaces/{_quoted(place['namespace'])}", collection=place["collection"])
    return sum(space["documents"] for space in spaces if space["name"] == place["namespace"])


def _quoted(name: str) -> str:
    """A name as one part of a path, also one that is called `..`."""
    return quote(name, safe="").replace(".", "%2E")
