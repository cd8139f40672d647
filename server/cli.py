"""The command line. A command talks to the server that holds the data folder, or opens the folder itself (client.py).

Errors are one line on stderr: exit code 2 for what the caller got wrong, 1 for what failed.
"""

import asyncio
import importlib
import os
import sys
import traceback
from collections.abc import Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import httpx2
import orjson
import typer
from pydantic import ValidationError
from rich.text import Text
from typer.exceptions import Abort, TyperException

from indexers.base import IndexerError
from indexers.filter import is_unicode
from models.base import ModelError
from server.base import InvalidRequestError, ServerError
from server.cli_view import err, out, show_answer, show_failures, show_hits, show_ingestion, show_status
from server.client import INGEST, Json, ReplyError, open_client
from server.settings import Settings

app = typer.Typer(name="refdesk", add_completion=False, pretty_exceptions_enable=False)

Collection = Annotated[str | None, typer.Option("--collection", "-c", help="Default: the setting `collection`.")]
Spaces = Annotated[list[str] | None, typer.Option("--namespace", "-n", help="Up to 8; default: `default`.")]
Filter = Annotated[str | None, typer.Option(help='Metadata filter, JSON: \'{"year": {"$gte": 2020}}\'.')]
AsJson = Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")]


@app.callback()
def options(
    ctx: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="The data folder; default: REFDESK_DATA_DIR, or data.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting: NAME=VALUE; may be repeated.")] = None,
) -> None:
    """A reference desk for your own documents: every sentence of an answer points at the exact words it rests on."""
    ctx.obj = {**assigned(set_ or ()), **({"data_dir": str(data_dir)} if data_dir else {})}


def assigned(pairs: Sequence[str]) -> dict[str, str]:
    """The settings that `--set NAME=VALUE` names. Raises InvalidRequestError for one without a name or a value."""
    for pair in pairs:
        if pair.find("=") < 1:
            raise InvalidRequestError(f"--set {pair!r}: give NAME=VALUE", "set")
    return dict(pair.partition("=")[::2] for pair in pairs)


def settings_of(ctx: typer.Context, **overrides: str | int | None) -> Settings:
    """The settings: a command's own options over --set over the environment. Raises InvalidRequestError."""
    given = {**ctx.obj, **{name: value for name, value in overrides.items() if value is not None}}
    try:
        return Settings(**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(f"setting {name}: {first['msg']}" if name else first["msg"], name) from exc


def run(work: Coroutine[Any, Any, None]) -> None:
    """A command's asynchronous part."""
    asyncio.run(work)


@app.command()
def ingest(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="A file, a folder, or s3://bucket/prefix.")],
    collection: Collection = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Default: `default`.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Who may read it ('': everyone); default: who may now. Repeatable.")
    ] = None,
    metadata: Annotated[str, typer.Option(help="Metadata of every document, a JSON object.")] = "{}",
    prune: Annotated[bool, typer.Option("--prune", help="Delete the namespace's documents that PATH lacks.")] = False,
) -> None:
    """Read documents, and make them searchable; unchanged ones cost a hash, or their line in a listing."""
    is_s3 = path.startswith("s3://")
    if not is_s3 and not Path(path).exists():
        raise InvalidRequestError(f"there is no file or folder {path!r}", "path")
    body: Json = {
        "path": path if is_s3 else os.path.abspath(path),  # a link to a file keeps its own name
        "collection": collection,
        "namespace": namespace,
        "groups": group or None,
        "metadata": json_object(metadata, "--metadata"),
        "prune": prune,
    }

    async def work() -> None:
        async with open_client(settings_of(ctx), INGEST) as client:
            receipt = await show_ingestion(client.events("/v1/local/ingest", body), path if is_s3 else Path(path).name)
        if receipt["failed"] and not any(receipt[kind] for kind in ("added", "replaced", "patched", "unchanged")):
            raise typer.Exit(1)

    run(work())


@app.command()
def search(
    ctx: typer.Context,
    question: str,
    collection: Collection = None,
    namespace: Spaces = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, max=100)] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="Metadata filter, as JSON.")] = None,
    rerank: bool = True,
    as_json: AsJson = False,
) -> None:
    """Find the passages that answer a question best."""
    body = {
        "question": question,
        "collection": collection,
        "namespaces": namespace or None,
        "top_k": top_k,
        "filter": json_object(filter_, "--filter") if filter_ else None,
        "rerank": rerank,
    }

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk search") as client:
            reply = await client.call("POST", "/v1/search", body)
        _print_json(reply) if as_json else show_hits(reply)

    run(work())


@app.command()
def ask(
    ctx: typer.Context,
    question: str,
    collection: Collection = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Default: `default`.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="Metadata filter, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question, each sentence with the words it rests on."""

    async def work() -> None:
        settings = settings_of(ctx)
        body: Json = {
            "model": (collection or settings.collection) + (f":{namespace}" if namespace else ""),
            "messages": [{"role": "user", "content": question}],
            "filter": json_object(filter_, "--filter") if filter_ else None,
        }
        async with open_client(settings, "refdesk ask") as client:
            try:
                if as_json:
                    _print_json(await client.call("POST", "/v1/chat/completions", body))
                else:
                    await show_answer(client, client.events("/v1/chat/completions", {**body, "stream": True}))
            except ReplyError as exc:
                if exc.code == "model_not_found":  # a search says which collection or namespace is not there
                    asked = {"question": question, "collection": collection, "namespaces": [namespace or "default"]}
                    await client.call("POST", "/v1/search", asked)
                raise

    run(work())


@app.command()
def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show what the desk holds: documents and chunks, models, sizes."""

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk status") as client:
            reply = await client.call("GET", "/v1/status")
        _print_json(reply) if as_json else show_status(reply)

    run(work())


@app.command()
def failed(
    ctx: typer.Context,
    collection: Collection = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Default: `default`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what could not be read, and why; ingesting it again tries again."""

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk failed") as client:
            found: list[Json] = []
            after: str | None = ""
            while after is not None:
                asked = {"collection": collection, "namespace": namespace, "after": after, "limit": 1000}
                page = await client.call("GET", "/v1/failures", **asked)
                found += page["data"]
                after = page["next"]
        _print_json({"failed": found}) if as_json else show_failures(found)

    run(work())


@app.command()
def repair(ctx: typer.Context) -> None:
    """Make index and catalog agree again, and finish what a crash left."""

    async def work() -> None:
        async with open_client(settings_of(ctx), "refdesk repair") as client:
            found = (await client.call("POST", "/v1/repair"))["found"]
        for kind, count in found.items():
            if count:
                out.print(f"{count:,} {kind.replace('_', ' ')}")
        if not any(found.values()):
            out.print("nothing to repair", style="green")

    run(work())


@app.command()
def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: a free one.")] = None,
) -> None:
    """Serve the HTTP API (docs/http.md)."""
    from server.cli_serve import serve as serve_http

    serve_http(settings_of(ctx, host=host, port=port))


@app.command(
    name="eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def evaluate(ctx: typer.Context) -> int:
    """Measure retrieval on a data set or on your own questions; compare two runs. `refdesk eval --help` says more."""
    try:
        command = importlib.import_module("eval.run")  # by name: eval stands above server, and may not be there at all
    except ModuleNotFoundError as exc:
        raise InvalidRequestError(
            f"{exc.name!r} is not installed, which evaluation needs: run `make .venv-dev/bin/refdesk` in refdesk's "
            "source folder, then `.venv-dev/bin/refdesk eval`"
        ) from exc
    code: int = command.main(ctx.args, ctx.obj)
    return code


def json_object(text: str, option: str) -> Json:
    """What an option says in JSON. Raises InvalidRequestError, naming the option."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequestError(f"{option}: {exc}; quote it for the shell: '{{\"year\": 2024}}'") from exc
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{option}: give a JSON object, not {text!r}")
    return value


def _print_json(reply: Json) -> None:
    out.print(orjson.dumps(reply, option=orjson.OPT_INDENT_2).decode(), markup=False)


def main() -> None:
    """The entry point."""
    sys.exit(run_command(sys.argv[1:]))


@cache
def _complete() -> typer.Typer:
    """The app with the commands of the other files, which import this one."""
    from server import cli_delete, cli_demo, cli_keys, cli_models

    for commands in (cli_keys.app, cli_models.app):
        app.add_typer(commands)
    app.command(name="demo")(cli_demo.demo)
    app.command(name="delete")(cli_delete.delete)
    return app


def run_command(arguments: Sequence[str]) -> int:
    """Run a command line; returns its exit code."""
    if odd := [argument for argument in arguments if not is_unicode(argument)]:  # as Python keeps other bytes
        return _fail(f"{odd[0]!r} is not UTF-8: write it in UTF-8, rename a file that is called so", 2)
    try:
        return _complete()(list(arguments) or ["--help"], standalone_mode=False, prog_name="refdesk") or 0
    except TyperException as exc:
        return _fail(exc.format_message(), 2)
    except (KeyboardInterrupt, Abort):
        return _fail("stopped", 130)
    except InvalidRequestError as exc:
        return _fail(str(exc), 2)
    except ReplyError as exc:
        return _fail(str(exc), 2 if exc.is_callers else 1)
    except (ServerError, ModelError, IndexerError) as exc:
        return _fail(str(exc), 1)
    except (httpx2.HTTPError, OSError) as exc:
        return _fail(f"{type(exc).__name__}: {exc}", 1)
    except Exception as exc:
        if os.environ.get("REFDESK_LOG_LEVEL") == "debug":
            traceback.print_exc()
        return _fail(f"a fault of refdesk: {type(exc).__name__}: {exc} (REFDESK_LOG_LEVEL=debug shows where)", 1)


def _fail(message: str, code: int) -> int:
    err.print(Text("refdesk: ", style="bold red") + Text(message))
    return code
