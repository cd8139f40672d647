"""A run, and its comparison with a baseline if there is one, as one HTML file for people: nothing is loaded by it."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from eval.compare import Comparison
from eval.markup import Markup, element, joined
from eval.metrics import JUDGED, METRICS
from eval.page_compare import compared
from eval.page_questions import every_question, first_place, worst_questions
from eval.page_style import SCRIPT, STYLE
from eval.plots import Bar, Curve, Part, bars, curves, stacked
from eval.ranking import BM25, DENSE
from eval.record import Run

_DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100)
_FOUND_WITHIN = 10


def write_page(run: Run, path: Path, comparison: Comparison | None = None) -> None:
    """Write the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run, comparison), encoding="utf-8")


def page(run: Run, comparison: Comparison | None = None) -> str:
    """The report as HTML."""
    sections = [
        _head(run),
        _scores(run),
        *([compared(run, comparison)] if comparison else []),
        _depth(run),
        *([_legs(run)] if {DENSE, BM25} <= run.means.keys() else []),
        worst_questions(run),
        every_question(run),
        _about(run),
    ]
    head = joined(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", f"{run.name}: retrieval, evaluated"),
            element("style", Markup(STYLE)),
        ]
    )
    body = element("body", *sections, element("script", Markup(SCRIPT)))
    return f"<!doctype html>{element('html', element('head', head), body, lang='en')}\n"


def _head(run: Run) -> Markup:
    served, date = run.means[run.served], str(run.about.get("measured_at", ""))[:10]
    tiles = [(f"{served[name]:.3f}", f"{name} of a search") for name in (JUDGED, "recall@10", "MRR@10")]
    if "recall@100" in run.exact:
        tiles.append((f"{run.exact['recall@100']:.4f}", "of the exact nearest 100, found by the dense leg"))
    shown = [element("div", element("b", value), element("span", name), kind="tile") for value, name in tiles]
    return joined(
        [
            element("h1", run.name),
            element("p", f"How well retrieval finds what answers a question. {run.counts}, {date}. ", kind="soft"),
            element("div", *shown, kind="tiles"),
        ]
    )


def _scores(run: Run) -> Markup:
    best = {name: max(mean[name] for mean in run.means.values()) for name in METRICS}
    heads = [element("th", column, kind=_served(run, column)) for column in run.means]
    rows = []
    for name in METRICS:
        cells = [
            element("td", f"{mean[name]:.3f}", kind=f"{_served(run, column)} {'best' * (mean[name] == best[name])}")
            for column, mean in run.means.items()
        ]
        rows.append(element("tr", element("td", name), *cells))
    said = "The shaded column is what a search returns. Below, "
    return joined(
        [
            element("h2", "Ways of ranking"),
            element("table", element("tr", element("th"), *heads), *rows),
            element("p", f"{said}{JUDGED} with the mean's 95 % interval:", kind="soft"),
            bars([_bar(run, column) for column in run.means]),
        ]
    )


def _bar(run: Run, column: str) -> Bar:
    values = [asked.metrics[column][JUDGED] for asked in run.asked]
    mean = fmean(values)
    half = 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 1.0  # of one question nothing follows
    return Bar(column, mean, max(mean - half, 0.0), min(mean + half, 1.0), is_strong=column == run.served)


def _depth(run: Run) -> Markup:
    series = []
    for column in run.means:
        first = [first_place(asked, column) for asked in run.asked]
        points = [(float(depth), sum(place <= depth for place in first) / len(first)) for depth in _DEPTHS]
        series.append(Curve(column, points, is_strong=column == run.served))
    said = "Share of questions with something that answers them among the first hits; at the end of a line, among 100."
    return joined([element("h2", "How far down the answer is"), element("p", said), curves(series, "hits looked at")])


def _legs(run: Run) -> Markup:
    everyone = {asked.id for asked in run.asked}
    dense, words = (
        {asked.id for asked in run.asked if first_place(asked, column) <= _FOUND_WITHIN} for column in (DENSE, BM25)
    )
    neither = everyone - dense - words
    rescued = sum(a.id in neither and first_place(a, run.served) <= _FOUND_WITHIN for a in run.asked)
    shares: Sequence[tuple[str, set[str]]] = (
        ("both legs", dense & words),
        ("dense alone", dense - words),
        ("BM25 alone", words - dense),
    )
    parts = [Part(name, len(found) / len(everyone)) for name, found in shares]
    parts.append(Part("neither", len(neither) / len(everyone), f"(a search: {rescued} of {len(neither)})"))
    said = f"Whose first {_FOUND_WITHIN} hits hold an answer: what one leg finds alone, a search without it would lose."
    return joined([element("h2", "Which leg finds it"), element("p", said), stacked(parts)])


def _about(run: Run) -> Markup:
    rows = [
        element("tr", element("td", name), element("td", element("code", value), kind="text"))
        for name, value in _flat(run.about, "")
    ]
    content = element("details", element("summary", "models, settings, machine"), element("table", *rows))
    return joined([element("h2", "What was measured"), content])


def _flat(values: object, prefix: str) -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        return [(prefix, str(values))]
    return [pair for name, value in values.items() for pair in _flat(value, f"{prefix}.{name}".lstrip("."))]


def _served(run: Run, column: str) -> str:
    return "served" if column == run.served else ""
