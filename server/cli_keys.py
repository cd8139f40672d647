"""`refdesk keys`: add, list, revoke."""

from typing import Annotated

import typer

from server.cli import run, settings_of
from server.cli_view import err, out, show_keys
from server.client import open_client

app = typer.Typer(name="keys", help="Add, list and revoke keys.", invoke_without_command=True)


@app.callback()
def keys(ctx: typer.Context) -> None:
    """Add, list and revoke keys."""
    if ctx.invoked_subcommand is None:
        list_(ctx)


@app.command()
def add(
    ctx: typer.Context,
    name: str,
    role: Annotated[list[str] | None, typer.Option(help="read, write or admin; default read. Repeatable.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="collection:namespace or collection:*; default all.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Whose documents it reads, beside those open to all.")] = None,
    all_groups: Annotated[
        bool, typer.Option("--all-groups", help="It reads every document, whatever its ACL.")
    ] = False,
    days: Annotated[float | None, typer.Option(help="It expires after so many days.", min=0)] = None,
    per_minute: Annotated[float | None, typer.Option(help="Requests a minute; default: a setting's.", min=0.1)] = None,
) -> None:
    """Make a key; it is shown once."""
    body = {
        "name": name,
        "roles": role or ["read"],
        "namespaces": namespace or None,
        "groups": None if all_groups else group or [],
        "lifetime_s": None if days is None else days * 86_400,
        "requests_per_minute": per_minute,
    }

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk keys") as client:
            reply = await client.call("POST", "/v1/keys", body)
        out.print(reply["key"], markup=False)
        err.print(f"{reply['id']}: shown this once, only its hash is kept", style="dim")

    run(work())


@app.command(name="list")
def list_(ctx: typer.Context) -> None:
    """List keys by their claims."""

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk keys") as client:
            show_keys((await client.call("GET", "/v1/keys"))["data"])

    run(work())


@app.command()
def revoke(ctx: typer.Context, key_id: str) -> None:
    """End a key."""

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk keys") as client:
            await client.call("DELETE", f"/v1/keys/{key_id}")
        out.print(f"{key_id} is revoked", style="green", markup=False)

    run(work())
