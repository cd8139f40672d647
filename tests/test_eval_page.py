"""The report page: whole, well-formed, nothing loaded from anywhere, everything from outside escaped."""

from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

from eval.compare import compare
from eval.markup import Markup, element, joined
from eval.metrics import METRICS
from eval.page import page
from eval.plots import Curve, curves, differences
from eval.record import Asked, Found, Run, as_baseline

HOSTILE = "<script>alert('&')</script>"


class Checked(HTMLParser):
    """Fails on a tag that is not closed in its turn; collects links and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "srcset"}]
        self.scripts += tag == "script"
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"meta", "input", "path", "rect"}


def asked(id_: str, value: float, places: Sequence[int]) -> Asked:
    metrics = {column: dict.fromkeys(METRICS, value) for column in ("dense", "BM25", "fused")}
    found = (Found("d1", HOSTILE, HOSTILE, is_relevant=False),)
    return Asked(id_, f"{HOSTILE} {id_}?", (HOSTILE,), metrics, dict.fromkeys(metrics, tuple(places)), found)


def run(*questions: Asked) -> Run:
    means = {column: dict.fromkeys(METRICS, 0.5) for column in ("dense", "BM25", "fused")}
    about = {"measured_at": "2026-11-23T00:00:00", "models": {"embedder": HOSTILE}}
    exact = {"recall@10": 1.0, "recall@100": 0.9995}
    return Run("run", HOSTILE, "f", "fused", means, exact, 3, 4, questions, about)


def check(html: str) -> Checked:
    checked = Checked()
    checked.feed(html)
    checked.close()
    assert checked.open == []
    assert checked.loaded == []
    assert checked.scripts == 1  # the page's own
    assert "http" not in html
    return checked


def test_a_page_is_whole_and_loads_nothing() -> None:
    html = page(run(asked("a", 0.0, []), asked("b", 1.0, [1, 40])))
    check(html)
    for part in ("0.9995", "How far down the answer is", "Which leg finds it", "The worst questions", "Every question"):
        assert part in html


def test_a_page_shows_a_comparison() -> None:
    before, after = run(asked("a", 0.0, []), asked("b", 1.0, [1])), run(asked("a", 0.5, [3]), asked("b", 1.0, [1]))
    html = page(after, compare(as_baseline(before), as_baseline(after)))
    check(html)
    assert "Not worse than the baseline." in html
    assert "Gained most" in html
    assert "Lost most" not in html


def test_a_run_without_a_leg_or_a_miss_has_a_page_too() -> None:
    one = run(asked("a", 1.0, [1]))
    check(page(replace(one, means={"fused": one.means["fused"]}, exact={})))


def test_only_markup_is_not_escaped() -> None:
    assert element("b", "<", Markup("<i/>"), kind="x", title='"', data_value=1.0) == (
        '<b class="x" title="&quot;" data-value="1">&lt;<i/></b>'
    )
    assert joined([element("path", d="M0 0")]) == '<path d="M0 0"/>'


def test_plots_take_extremes() -> None:
    check_svg = [curves([Curve("flat", [(1.0, 1.0), (100.0, 1.0)])], "x"), differences([-1.0, 0.0, 1.0])]
    assert all("nan" not in svg and "inf" not in svg for svg in check_svg)
