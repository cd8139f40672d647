"""`python -m eval.support`: how often the support check accepts what is not supported, and rejects what is.

SQuAD pairs (eval/support_pairs.py) go through the same candidates, shortlist and score as an answer's sentences do.
The threshold is chosen on every other article and reported on the rest.
"""

import argparse
import asyncio
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eval import command
from eval.page_style import PLOT_STYLE
from eval.plots import Curve, curves, standalone
from eval.support_pairs import NEGATIVES, POSITIVES, Pair, Paragraph, make_pairs
from models.base import Embedder, EmbedderInfo, Float32
from models.openvino import OpenVinoEmbedder
from models.store import ModelStore
from server.base import ContextPassage, InvalidRequestError, SearchHit, Span, StoredChunk
from server.quotes import Quote, best, candidates, shortlist
from server.support import DEFAULT_THRESHOLD, terms

SHORTLIST = 1  # what each sentence of a five-sentence answer gets (server/cite.py)
SHOWN = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
_BEGIN, _END = "<!-- eval.support: begin -->", "<!-- eval.support: end -->"


@dataclass(frozen=True, slots=True)
class Scored:
    kind: str
    chosen_on: bool  # of the half that the threshold is chosen on
    support: float


def error_rate(scored: Sequence[Scored], kind: str, threshold: float) -> float:
    """False rejects of a positive kind, false accepts of a negative one; a support equal to the threshold accepts."""
    accepted = [s.support >= threshold for s in scored if s.kind == kind]
    share = sum(accepted) / max(1, len(accepted))
    return 1 - share if kind in POSITIVES else share


def false_rejects(scored: Sequence[Scored], threshold: float) -> float:
    """Both positive kinds weigh the same."""
    return sum(error_rate(scored, kind, threshold) for kind in POSITIVES) / len(POSITIVES)


def false_accepts(scored: Sequence[Scored], threshold: float) -> float:
    """A third each: another paragraph's sentence, a swap (of a number or a name), a plausible wrong answer."""
    other, number, name, plausible = (error_rate(scored, kind, threshold) for kind in NEGATIVES)
    return (other + (number + name) / 2 + plausible) / 3


def choose_threshold(scored: Sequence[Scored]) -> float:
    """The hundredth at which false rejects and false accepts are least together; the lowest of equals."""
    return min((t / 100 for t in range(1, 101)), key=lambda t: false_rejects(scored, t) + false_accepts(scored, t))


async def score(pairs: Sequence[Pair], embedder: Embedder, cache: Path) -> list[Scored]:
    """The best support that each sentence finds in its paragraph."""
    quotes: dict[str, list[Quote]] = {}
    for pair in pairs:
        if pair.paragraph.id not in quotes:
            quotes[pair.paragraph.id] = candidates(_passage(pair.paragraph))
    said = [terms(pair.sentence) for pair in pairs]
    lists = [shortlist(s, quotes[p.paragraph.id], SHORTLIST) for s, p in zip(said, pairs, strict=True)]
    texts = {
        text: None for p, found in zip(pairs, lists, strict=True) for text in (p.sentence, *(q.text for q in found))
    }
    vectors = await _embed(list(texts), embedder, cache)
    chosen_on = set(sorted({pair.paragraph.article for pair in pairs})[::2])
    scored = []
    for pair, sentence, found in zip(pairs, said, lists, strict=True):
        match = best(sentence, found, partial(_cosine, vectors, pair.sentence))
        assert match is not None
        scored.append(Scored(pair.kind, pair.paragraph.article in chosen_on, match.support))
    return scored


def report(scored: Sequence[Scored], embedder: EmbedderInfo) -> str:
    """Markdown: who embedded, the threshold chosen, and on the other half the whole curve by kind."""
    chosen = [s for s in scored if s.chosen_on]
    rest = [s for s in scored if not s.chosen_on]
    threshold = choose_threshold(chosen)
    kinds = (*POSITIVES, *NEGATIVES)
    here, there = ([false_rejects(part, threshold), false_accepts(part, threshold)] for part in (chosen, rest))
    lines = [
        f"{embedder.name} in {embedder.precision}.",
        "",
        f"Threshold chosen on half of the articles: **{threshold:.2f}** (in use: {DEFAULT_THRESHOLD:.2f}). There, "
        f"false rejects are {here[0]:.3f} and false accepts {here[1]:.3f}; on the other half {there[0]:.3f} and "
        f"{there[1]:.3f}.",
        "",
        "The other half, false rejects of the first two columns and false accepts of the rest:",
        "",
        "| threshold | " + " | ".join(kinds) + " | rejects | accepts |",
        "|" + "---|" * (len(kinds) + 3),
    ]
    for t in sorted({*SHOWN, threshold}):
        rates = [*(error_rate(rest, kind, t) for kind in kinds), false_rejects(rest, t), false_accepts(rest, t)]
        mark = "**" if t == threshold else ""
        lines.append(f"| {mark}{t:.2f}{mark} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |")
    counts = [sum(s.kind == kind for s in rest) for kind in kinds]
    lines.append("| pairs | " + " | ".join(map(str, counts)) + f" | {sum(counts[:2])} | {sum(counts[2:])} |")
    return "\n".join(lines)


def _passage(paragraph: Paragraph) -> ContextPassage:
    """A paragraph as a passage placed whole."""
    text = paragraph.text
    chunk = StoredChunk(
        id=paragraph.id,
        document_id=paragraph.id,
        version="",
        uri=paragraph.id,
        title=paragraph.article.replace("_", " "),
        index=0,
        total_chunks=1,
        start=0,
        end=len(text),
        page=None,
        heading_path=(),
        token_count=0,
        text=text,
        metadata={},
        groups=(),
    )
    return ContextPassage(1, SearchHit(chunk, "squad", 1.0, {}), (Span(0, len(text)),), text, 0)


def _cosine(vectors: Mapping[str, Float32], sentence: str, quote: Quote) -> float:
    return 1.0 if quote.text == sentence else float(vectors[sentence] @ vectors[quote.text])


async def _embed(texts: Sequence[str], embedder: Embedder, cache: Path) -> Mapping[str, Float32]:
    """A vector for each text; those in the cache folder are not computed again."""
    keys = {text: hashlib.sha256(text.encode()).hexdigest() for text in texts}
    file = cache / f"{embedder.info.fingerprint[:16]}-{embedder.info.precision}.npz"
    known = await asyncio.to_thread(_read_cache, file)
    missing = [text for text in texts if keys[text] not in known]
    for first in range(0, len(missing), 256):
        batch = missing[first : first + 256]
        embeddings = await embedder.embed_queries(batch)
        known.update((keys[text], e.vector) for text, e in zip(batch, embeddings, strict=True))
    if missing:
        await asyncio.to_thread(_write_cache, file, known)
    return {text: known[key] for text, key in keys.items()}


def _read_cache(file: Path) -> dict[str, Float32]:
    if not file.exists():
        return {}
    stored = np.load(file)
    return dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))


def _write_cache(file: Path, vectors: Mapping[str, Float32]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, keys=np.array(list(vectors)), vectors=np.stack(list(vectors.values())))


def plot(scored: Sequence[Scored]) -> str:
    """False rejects and false accepts of the reporting half over the threshold, as an SVG file."""
    rest = [s for s in scored if not s.chosen_on]
    rates = {"false rejects": false_rejects, "false accepts": false_accepts}
    series = [Curve(name, [(t / 50, rate(rest, t / 50)) for t in range(15, 51)]) for name, rate in rates.items()]
    series.append(
        Curve("of those made to deceive", [(t / 50, error_rate(rest, "plausible", t / 50)) for t in range(15, 51)])
    )
    ticks = (0.3, 0.4, 0.5, 0.6, DEFAULT_THRESHOLD, 0.7, 0.8, 0.9, 1.0)
    return standalone(curves(series, "threshold", ticks=ticks, scale=lambda t: t), PLOT_STYLE)


def around_table(page: Path) -> tuple[str, str]:
    """What stands before and after a page's table, markers left out. Raises InvalidRequestError without both."""
    command.needs(page)
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise InvalidRequestError(f"{str(page)!r} holds no place for the table: put {_BEGIN!r} and then {_END!r} there")
    return before, after


async def _run(arguments: argparse.Namespace) -> None:
    around = None if arguments.write is None else around_table(arguments.write)
    pairs = make_pairs(arguments.data, arguments.per_kind)
    embedder = OpenVinoEmbedder.load(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder"))
    try:
        scored = await score(pairs, embedder, arguments.cache)
    finally:
        await embedder.close()
    table = report(scored, embedder.info)
    print(table)
    if arguments.plot is not None:
        arguments.plot.write_text(plot(scored), encoding="utf-8")
    if around is not None:
        before, after = around
        arguments.write.write_text(f"{before}{_BEGIN}\n\n{table}\n\n{_END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.support", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/squad"), help="SQuAD in BEIR's layout")
    parser.add_argument("--per-kind", type=int, default=800, help="pairs of each positive kind and third of negatives")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "refdesk-support")
    parser.add_argument("--plot", type=Path, help="an SVG file of the curve: docs/support-curve.svg")
    parser.add_argument("--write", type=Path, help="a page whose table is replaced: docs/citations.md")
    arguments = parser.parse_args()
    command.needs(arguments.data)
    asyncio.run(_run(arguments))


if __name__ == "__main__":
    command.run(main)
