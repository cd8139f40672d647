"""`refdesk models`: list those that are here, add one from a folder, a GGUF file or, named so, a hub."""

from typing import Annotated

import typer
from rich.text import Text

from models.store import ModelStore
from server.cli import settings_of
from server.cli_view import err, out

app = typer.Typer(name="models", help="List and add models.", invoke_without_command=True)


@app.callback()
def models(ctx: typer.Context) -> None:
    """List and add models."""
    if ctx.invoked_subcommand is None:
        list_(ctx)


@app.command(name="list")
def list_(ctx: typer.Context) -> None:
    """List the models that settings may name."""
    for model in ModelStore(settings_of(ctx).data_dir).list():
        out.print(Text(f"{model.name}  ", "bold") + Text(model.kind, "cyan") + Text(f"  {model.path}", "dim"))


@app.command()
def add(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A folder, a GGUF file, or hub:ORG/NAME to download it.")],
    name: Annotated[str | None, typer.Option(help="What settings call it; default: the source's name.")] = None,
) -> None:
    """Copy a model into the data folder, with a manifest of its checksums."""
    with err.status(f"adding {source}"):
        model = ModelStore(settings_of(ctx).data_dir).add(source, name)
    out.print(
        f"{model.name} ({model.kind}): use it by --set {model.kind.replace('cross-encoder', 'reranker')}={model.name}"
    )
