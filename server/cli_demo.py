"""`refdesk demo`: ingest a folder, ask three questions, show the answers with the words they rest on."""

import re
import shlex
import sys
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated

import typer
from rich.rule import Rule
from rich.text import Text

from models.sentences import sentence_spans
from server.cli import run, settings_of
from server.cli_view import err, out, show_answer, show_ingestion
from server.client import DeskClient, Json, open_client
from server.data_folder import DOCUMENTS

FOLDER = Path("demo")
COUNT = 3  # questions
TOPIC_WORDS = 8


def demo(
    ctx: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(help="Your own folder; default: refdesk's documentation.", exists=True)
    ] = None,
    ask: Annotated[list[str] | None, typer.Option(help="A question of your own; may be repeated.")] = None,
) -> None:
    """Try refdesk: ingest a folder, ask questions of it, see cited answers."""
    from server.demo import QUESTIONS, make_documents  # the libraries it takes, other commands do not

    settings = settings_of(ctx) if "data_dir" in ctx.obj else settings_of(ctx, data_dir=str(FOLDER))

    async def work() -> None:
        folder = path or settings.data_dir / DOCUMENTS
        if path is None:
            made = make_documents(folder)
            err.print(Text(f"refdesk's own documentation, {len(made)} files: {', '.join(p.name for p in made)}", "dim"))
        body: Json = {"path": str(folder.resolve())}
        async with open_client(settings, "refdesk demo") as client:
            await show_ingestion(client.events("/v1/local/ingest", body), folder.name)
            questions = ask or (QUESTIONS if path is None else await _questions(client, settings.collection))
            if not questions:
                err.print(Text(f"nothing to ask about: no document could be read in {folder}", "yellow"))
            for question in questions:
                out.print(Rule(Text(question, style="bold"), align="left", style="dim"))
                body = {
                    "model": settings.collection,
                    "messages": [{"role": "user", "content": question}],
                    "stream": True,
                }
                await show_answer(client, client.events("/v1/chat/completions", body))
        out.print(Rule(style="dim"))
        out.print("Ask your own:     ", Text(f'{_command(settings.data_dir)} ask "…"', style="bold"))
        out.print("Start the server: ", Text(f"{_command(settings.data_dir)} serve", style="bold"))

    run(work())


async def _questions(client: DeskClient, collection: str) -> list[str]:
    """Three questions about documents that nobody has told us anything of, by what they hold."""
    documents = (await client.call("GET", "/v1/documents", collection=collection, limit=1000))["data"]
    picked = dict.fromkeys(i * (len(documents) - 1) // 2 for i in range(COUNT)) if documents else {}
    topics = _in_turn([await _topics_of(client, collection, documents[i]) for i in picked])
    return [f"What about {topic}?" for topic in dict.fromkeys(topics)][:COUNT]


async def _topics_of(client: DeskClient, collection: str, document: Json) -> list[str]:
    """What the chunks of a document that its title finds are about."""
    title = document["title"] or document["uri"]
    body: Json = {"question": title, "collection": collection, "top_k": 20}
    hits = (await client.call("POST", "/v1/search", body))["hits"]
    return _in_turn([_topics(hit, title) for hit in hits if hit["uri"] == document["uri"]])


def _topics(hit: Json, title: str) -> list[str]:
    """The heading of a chunk, and the first words of its sentences."""
    sentences = [hit["text"][start:end] for start, end in sentence_spans(hit["text"])]
    words = [re.findall(r"[\w'’-]+", sentence)[:TOPIC_WORDS] for sentence in sentences]
    return [
        *(h for h in hit["heading_path"][-1:] if h != title),
        *(" ".join(w) for w in words if len(w) == TOPIC_WORDS),
    ]


def _in_turn(lists: list[list[str]]) -> list[str]:
    """The first of each list, then the second of each."""
    return [one for one in chain.from_iterable(zip_longest(*lists)) if one]


def _command(data_dir: Path) -> str:
    """How this very command line was started, on that data folder."""
    script = Path(sys.executable).with_name("refdesk")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "server"]
    here = Path.cwd()
    shown = [str(Path(p).relative_to(here)) if Path(p).is_relative_to(here) else p for p in program]
    return shlex.join([*shown, "--data-dir", str(data_dir)])
