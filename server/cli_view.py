"""What commands print: hits, answers with their quotes, receipts, status. Results go to stdout, the rest to stderr."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from server.client import DeskClient, Json, ReplyError

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)
AROUND = 70  # characters of context shown on each side of a quote
QUOTE = "black on yellow"


class RateColumn(ProgressColumn):
    """Sources a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "–/s", style="cyan")


async def show_ingestion(events: AsyncIterator[Json], what: str) -> Json:
    """A bar with rate and time left while an ingestion runs (on a terminal), then its receipt, which is returned."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[chunks]} chunks", style="dim"),
    ]
    receipt: Json | None = None
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None, chunks=0)
        async for event in events:
            if event["object"] == "receipt":
                receipt = event
            else:
                progress.update(task, total=event["sources"], completed=event["read"], chunks=event["chunks"])
    if receipt is None:
        raise ReplyError("the server ended without a receipt: its log says why")
    _show_receipt(receipt)
    return receipt


def _show_receipt(receipt: Json) -> None:
    kinds = ("added", "replaced", "patched", "unchanged", "pruned")
    counts = ", ".join(f"{receipt[kind]:,} {kind}" for kind in kinds if receipt[kind]) or "nothing new"
    rate = f"{receipt['tokens'] / receipt['seconds']:,.0f} tokens/s" if receipt["tokens"] else ""
    line = Text(f"{counts}; {receipt['chunks']:,} chunks in {receipt['seconds']:.1f} s", style="green")
    out.print(line + Text(f"  {rate}", style="dim"))
    for failure in receipt["failed"]:
        err.print(Text(f"  not read: {failure['uri']} ({failure['reason']}): {failure['detail']}", style="yellow"))


def place(source: Json) -> str:
    """Where something stands: uri, page, headings."""
    page = f", page {source['page']}" if source.get("page") else ""
    headings = " › ".join(source.get("heading_path") or ())
    return f"{source['uri']}{page}" + (f" · {headings}" if headings else "")


def show_hits(reply: Json) -> None:
    """Hits, best first, and where the time went."""
    for number, hit in enumerate(reply["hits"], start=1):
        ranks = " ".join(f"{leg} {rank}" for leg, rank in hit["ranks"].items())
        out.print(
            Text(f"{number:>2} ", style="bold") + Text(place(hit), style="cyan") + Text(f"  {ranks}", style="dim")
        )
        out.print(Text(f"   {_one_line(hit['text'], 240)}"))
    if not reply["hits"]:
        out.print(Text("nothing found", style="yellow"))
    _show_trailer(reply["degraded"], reply["timings_ms"])


async def show_answer(client: DeskClient, events: AsyncIterator[Json]) -> Json:
    """An answer as it comes, then the exact words it rests on; returns the last event."""
    last: Json = {}
    async for event in events:
        delta = event["choices"][0]["delta"] if event["choices"] else {}
        out.print(Text(delta.get("content") or ""), end="")
        last = event if "citations" in event else last
    out.print()
    if not last:
        raise ReplyError("the answer broke off: the server's log says why")
    await _show_citations(client, last["citations"])
    _show_trailer(last["refdesk"]["degraded"], last["refdesk"]["timings_ms"])
    return last


async def _show_citations(client: DeskClient, citations: Sequence[Json]) -> None:
    quotes: dict[tuple[Any, ...], Json] = {}
    for citation in citations:
        quotes.setdefault((citation["number"], citation["document_id"], citation["start"], citation["end"]), citation)
    shown = [quotes[key] for key in sorted(quotes, key=lambda key: (key[0], key[2]))]
    around = await asyncio.gather(*(_around(client, citation) for citation in shown))
    for citation, (before, after) in zip(shown, around, strict=True):
        out.print(Text(f"  [{citation['number']}] ", style="bold") + Text(place(citation), style="cyan"))
        words = _one_line(citation["quote"], 600)
        quote = Text(words, style=QUOTE) if out.is_terminal else Text(f"«{words}»")
        out.print(Text("      ") + Text(before, style="dim") + quote + Text(after, style="dim"))


async def _around(client: DeskClient, citation: Json) -> tuple[str, str]:
    """The words before and after a quote, from the stored text."""
    path, version, end = f"/v1/documents/{citation['document_id']}/text", citation["version"], citation["end"]
    start = max(0, citation["start"] - AROUND)
    before = await client.call("GET", path, version=version, start=start, end=citation["start"])
    try:
        after = await client.call("GET", path, version=version, start=end, end=end + 2 * AROUND)
    except ReplyError:  # the text ends before that
        after = await client.call("GET", path, version=version, start=end)
    return _tail(before["text"]), _head(after["text"])


def _tail(text: str) -> str:
    words = re.sub(r"\s+", " ", text)[-AROUND:]
    return f"… {words.partition(' ')[2]}" if len(text) >= AROUND else words


def _head(text: str) -> str:
    words = re.sub(r"\s+", " ", text[: AROUND * 2])[:AROUND]
    return f"{words.rpartition(' ')[0]} …" if len(words) >= AROUND else words


def _one_line(text: str, most: int) -> str:
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= most else f"{line[:most]}…"


def _show_trailer(degraded: Sequence[str], timings_ms: Json) -> None:
    for part in degraded:
        err.print(Text(f"degraded: {part}", style="yellow"))
    stages = [f"{stage} {ms:.0f}" for stage, ms in timings_ms.items() if stage not in {"own", "total"} and ms >= 0.5]
    total = f"{timings_ms.get('total', 0.0):.0f} ms"
    err.print(Text(f"{total} ({', '.join(stages)})" if stages else total, style="dim"))


def show_status(status: Json) -> None:
    """Models, what is in each namespace, and bytes on disk."""
    models = status["models"]
    names = (
        f"{models['embedder']} ({models['precision']}) · {models['reranker'] or 'no reranker'} · {models['generator']}"
    )
    out.print(Text(f"refdesk {status['version']}  ", style="bold") + Text(names, style="cyan"))
    table = Table("collection", "namespace", box=None, header_style="dim", pad_edge=False)
    columns = ("documents", "chunks", "failed", "commit")
    for column in columns:
        table.add_column(column, justify="right")
    for collection in status["collections"]:
        for space in collection["namespaces"]:
            counts = [f"{space[column]:,}" for column in columns]
            table.add_row(collection["name"], space["name"], *counts)
    out.print(table if table.row_count else Text("no documents yet: refdesk ingest PATH", style="yellow"))
    sizes = ", ".join(f"{name} {size / 2**20:,.1f} MB" for name, size in status["size_bytes"].items() if size >= 2**16)
    out.print(Text(sizes, style="dim"))


def show_failures(failed: Sequence[Json]) -> None:
    """Sources that could not be read, each with its reason."""
    for failure in failed:
        said = Text(failure["uri"], style="bold") + Text(f"  {failure['reason']}", style="red")
        out.print(said + Text(f": {failure['detail']}"))
    if not failed:
        out.print("all that was ingested could be read", style="green")


def show_keys(keys: Sequence[Json]) -> None:
    """Keys by their claims."""
    table = Table("id", "name", "roles", "namespaces", "groups", "state", box=None, header_style="dim", pad_edge=False)
    for key in keys:
        namespaces = "all" if key["namespaces"] is None else " ".join(key["namespaces"])
        groups = "all" if key["groups"] is None else " ".join(key["groups"]) or "–"
        state = "revoked" if key["revoked_at"] else "expires" if key["expires_at"] else "valid"
        table.add_row(key["id"], key["name"], " ".join(key["roles"]), namespaces, groups, state)
    out.print(table if table.row_count else Text("no keys yet: `refdesk serve` makes the first", style="yellow"))
