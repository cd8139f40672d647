"""A comparison with a baseline as a part of a run's page."""

from collections.abc import Mapping, Sequence

from eval.compare import Compared, Comparison
from eval.markup import Markup, element, joined
from eval.metrics import JUDGED
from eval.plots import differences
from eval.record import Run

_SHOWN = 10  # questions that gained most, and that lost most
_COLOURS = {"worse": "bad", "better": "good"}


def compared(run: Run, comparison: Comparison) -> Markup:
    """The verdict, the columns, each question's difference, those that changed most."""
    verdict = "Worse than the baseline, beyond chance." if comparison.is_worse else "Not worse than the baseline."
    about = comparison.baseline.about
    baseline = f" Baseline of {str(about.get('measured_at'))[:10]}, commit {str(about.get('commit'))[:12]}."
    test = f" Paired two-sided randomisation test on {JUDGED}; the shaded rows are judged."
    heads = ("column", "baseline", "run", "Δ", "p", "win / tie / loss", "verdict")
    rows = [_row(comparison, one) for one in comparison.columns]
    texts = {asked.id: asked.text for asked in run.asked}
    rising = sorted(comparison.deltas, key=lambda id_: comparison.deltas[id_])
    return joined(
        [
            element("h2", "Against the baseline"),
            element("p", element("b", verdict, kind="bad" if comparison.is_worse else "good"), test, baseline),
            element("table", element("tr", *(element("th", head) for head in heads)), *rows),
            _differences(comparison),
            _changed("Lost most", [id_ for id_ in rising if comparison.deltas[id_] < 0], comparison.deltas, texts),
            _changed("Gained most", [i for i in rising[::-1] if comparison.deltas[i] > 0], comparison.deltas, texts),
        ]
    )


def _differences(comparison: Comparison) -> Markup:
    if not any(comparison.deltas.values()):
        return element("p", "No question is answered at another place than before.", kind="soft")
    said = element("p", "Each question's difference in what a search returns, gains first:", kind="soft")
    return joined([said, differences(list(comparison.deltas.values()))])


def _row(comparison: Comparison, one: Compared) -> Markup:
    name = f"{one.column} ({comparison.run.served})" if one.column == "served" else one.column
    colour = _COLOURS.get(one.verdict, "")
    cells = [
        element("td", name),
        element("td", f"{one.baseline:.3f}"),
        element("td", f"{one.run:.3f}"),
        element("td", f"{one.delta:+.3f}", kind=colour),
        element("td", f"{one.p:.4f}"),
        element("td", f"{one.wins} / {one.ties} / {one.losses}"),
        element("td", one.verdict, kind=colour),
    ]
    return element("tr", *cells, kind="served" if one.is_judged else "")


def _changed(title: str, ids: Sequence[str], deltas: Mapping[str, float], texts: Mapping[str, str]) -> Markup:
    items = [element("li", f"{deltas[id_]:+.2f}  {texts[id_]}") for id_ in ids[:_SHOWN]]
    return element("details", element("summary", title), element("ol", *items)) if items else Markup("")
