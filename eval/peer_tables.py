"""Figures of compared programs as Markdown tables, and whether refdesk is ahead by what it means to be ahead."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from eval.compare import randomisation_test
from eval.metrics import JUDGED, Qrels, measure
from eval.peer_figures import Figures, Ingested, Searched, Searches

OURS = "refdesk"
FASTER_IN, FASTER_OUT, ALPHA = 3.0, 3.0, 0.05  # ingestion, search p50, and what p calls worse


def ingestion_table(figures: Figures, qrels: Qrels) -> str:
    """One row a program and way of searching; p: of refdesk's rows against this one, by the paired test on nDCG@10."""
    ours = figures.ingested[OURS].searches
    head = [
        "",
        "installed MB (CUDA's)",
        "documents/s",
        "CPU ms a document",
        "peak MiB",
        "search p50 ms",
        "p95 ms",
        "CPU ms a search",
        JUDGED,
        *(f"p of {one.row}" for one in ours),
    ]
    rows = []
    for one in figures.ingested.values():
        about = [
            f"{one.installed_mb:.0f} ({one.cuda_mb:.0f})",
            f"{one.per_second:.1f}",
            f"{one.cpu_s / one.documents * 1e3:.0f}",
            f"{one.peak_mib:.0f}",
        ]
        for place, searches in enumerate(one.searches):
            p = ["" if searches in ours else f"{_p(qrels, our, searches):.4f}" for our in ours]
            rows.append(
                [
                    searches.row,
                    *(about if place == 0 else [""] * len(about)),
                    *_percentiles(searches.ms),
                    _optional(searches.cpu_ms),
                    f"{_ndcg(qrels, searches):.3f}",
                    *p,
                ]
            )
    return _markdown(head, rows)


def search_table(figures: Figures) -> str:
    """One row a program and way of searching."""
    head = [
        "",
        "in-process p50 ms",
        "p95 ms",
        "CPU ms a search",
        "HTTP p50 ms",
        "p95 ms",
        "build s",
        "start s",
        "peak MiB in-process",
        "of the server",
    ]
    rows = []
    for one in figures.searched.values():
        about = [
            f"{one.build_s:.0f}" if one.build_s else "–",
            f"{one.start_s:.1f}",
            f"{one.in_process_mib:.0f}",
            f"{one.server_mib:.0f}",
        ]
        for place, (inside, http) in enumerate(zip(one.in_process, one.over_http, strict=True)):
            times = [*_percentiles(inside.ms), _optional(inside.cpu_ms), *_percentiles(http.ms)]
            rows.append([inside.row, *times, *(about if place == 0 else [""] * len(about))])
    return _markdown(head, rows)


def verdicts(figures: Figures, qrels: Qrels) -> Iterator[str]:
    """A line for each goal that both sides were measured for: how far ahead, and whether that is met."""
    ingested, searched = dict(figures.ingested), dict(figures.searched)
    if (ours := ingested.pop(OURS, None)) and ingested:
        yield _verdict(
            "ingestion", {name: ours.per_second / one.per_second for name, one in ingested.items()}, FASTER_IN
        )
        first = ours.searches[0]
        yield _verdict("search p50, SciFact, in-process", _speedups(first, _first(ingested)), FASTER_OUT)
        for our in ours.searches:
            yield _not_worse(qrels, our, _first(ingested))
    if (mine := searched.pop(OURS, None)) and searched:
        inside = {name: one.in_process[0] for name, one in searched.items()}
        http = {name: one.over_http[0] for name, one in searched.items()}
        chunks = f"search p50, {mine.chunks} chunks"
        yield _verdict(f"{chunks}, in-process", _speedups(mine.in_process[0], inside), FASTER_OUT)
        yield _verdict(f"{chunks}, HTTP", _speedups(mine.over_http[0], http), FASTER_OUT)


def _first(ingested: Mapping[str, Ingested]) -> dict[str, Searches]:
    return {name: one.searches[0] for name, one in ingested.items()}


def _speedups(ours: Searches, theirs: Mapping[str, Searches]) -> dict[str, float]:
    return {name: float(np.median(one.ms) / np.median(ours.ms)) for name, one in theirs.items()}


def _verdict(what: str, ratios: Mapping[str, float], wanted: float) -> str:
    least = min(ratios, key=lambda name: ratios[name])
    each = ", ".join(f"{name} {ratio:.1f} ×" for name, ratio in ratios.items())
    return f"{what}, refdesk ahead of {each}: {_met(ratios[least] >= wanted)} (wanted of each: {wanted:.0f} ×)"


def _not_worse(qrels: Qrels, ours: Searches, theirs: Mapping[str, Searches]) -> str:
    deltas = {name: _ndcg(qrels, ours) - _ndcg(qrels, one) for name, one in theirs.items()}
    worse = [name for name, one in theirs.items() if deltas[name] < 0 and _p(qrels, ours, one) <= ALPHA]
    each = ", ".join(f"{name} {delta:+.3f}" for name, delta in deltas.items())
    return f"{JUDGED} of {ours.row} less that of {each}: {_met(not worse)} (wanted: none worse at p ≤ {ALPHA})"


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT met"


def _ndcg(qrels: Qrels, searches: Searches) -> float:
    return measure(qrels, searches.rankings or {}).mean[JUDGED]


def _p(qrels: Qrels, one: Searches, other: Searches) -> float:
    """Two-sided p of the difference of two runs' nDCG@10, over the same questions."""
    first, second = (measure(qrels, each.rankings or {}).per_question[JUDGED] for each in (one, other))
    return randomisation_test(np.array([first[id_] - second[id_] for id_ in qrels]))


def _percentiles(ms: Sequence[float]) -> list[str]:
    return [f"{np.percentile(ms, p):.1f}" for p in (50, 95)]


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def origins_of(measured: Mapping[str, Ingested] | Mapping[str, Searched], asked: int) -> str:
    """When, where, at which commit and with how many questions it was measured: one line if that is the same for all,
    else a line a program. `asked`: how many questions were to be."""
    each = {name: _origin(one, asked) for name, one in measured.items()}
    if len(set(each.values())) == 1:
        return next(iter(each.values()))
    return "\n".join(f"- {name}: {origin}" for name, origin in each.items())


def _origin(one: Ingested | Searched, asked: int) -> str:
    where = f"{one.machine['cores']} cores of {one.machine['cpu']}" if one.machine else "machine unknown"
    questions = f"{one.asked} questions" + ("" if one.asked == asked else f", not the {asked} asked for")
    return f"{one.measured_at[:10]}, {where}, commit {one.commit or 'unknown'}, {questions}"


def marked(figures: Figures, present: str | None) -> tuple[Figures, list[str]]:
    """The figures with a * on refdesk's rows that are not known to be of the present commit, and what the * means."""
    ingested, searched = dict(figures.ingested), dict(figures.searched)
    others = [one.commit for one in (ingested.get(OURS), searched.get(OURS)) if one and _is_other(one.commit, present)]
    if (into := ingested.get(OURS)) and _is_other(into.commit, present):
        ingested[OURS] = replace(into, searches=_starred(into.searches))
    if (out := searched.get(OURS)) and _is_other(out.commit, present):
        searched[OURS] = replace(out, in_process=_starred(out.in_process), over_http=_starred(out.over_http))
    commits = " and ".join(dict.fromkeys(commit or "unknown" for commit in others))
    note = f"* commit {commits}; the present one is {present or 'unknown'}: `--again {OURS}` measures anew"
    return Figures(ingested, searched), [note] if others else []


def _is_other(commit: str | None, present: str | None) -> bool:
    return commit is None or commit != present


def _starred(searches: Sequence[Searches]) -> tuple[Searches, ...]:
    return tuple(replace(one, row=f"{one.row} *") for one in searches)


def versions_of(measured: Mapping[str, Ingested] | Mapping[str, Searched]) -> str:
    """What was compared, by version, a program a line."""
    return "\n".join(
        f"- {name}: {', '.join(f'{package} {version}' for package, version in sorted(one.versions.items()))}"
        for name, one in measured.items()
    )
