"""The page of a load run: each request's latency where it was due, and the server's memory, over time; no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.markup import Markup, element, joined
from eval.page_style import STYLE

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 880, 260, 64, 12, 34
_DOTS = "circle { fill-opacity: .45; }" + "".join(f" circle.c{i} {{ fill: var(--c{i}); }}" for i in range(6))


@dataclass(frozen=True, slots=True)
class Line:
    """Points (seconds, value); `said` of them: a sentence for people."""

    label: str
    points: tuple[tuple[float, float], ...]
    said: str = ""


def write_page(path: Path, title: str, latencies: Sequence[Line], memory: Sequence[Line]) -> Path:
    """Write the page and return its path: `latencies` in milliseconds, a dot each on a log scale, `memory` in MiB."""
    sections = [element("h1", title)]
    for line in latencies:
        said = f"Latency from when a request was due, ms. {line.said}"
        sections += [element("h2", line.label), element("p", said), dots(line)]
    sections += [element("h2", "Memory of the server, MiB (PSS)"), lines(memory)]
    style = element("style", Markup(STYLE + _DOTS))
    head = element("head", element("meta", charset="utf-8"), element("title", title), style)
    body = element("body", *sections)
    path.write_text("<!doctype html>\n" + element("html", head, body, lang="en"), encoding="utf-8")
    return path


def dots(line: Line) -> Markup:
    """A dot for each point, on a logarithmic y from 1 to the power of ten above the largest."""
    decades = max(1, math.ceil(math.log10(max([value for _, value in line.points] + [10]))))
    across = max([at for at, _ in line.points] + [1.0])
    parts = _seconds(across)
    for decade in range(decades + 1):
        parts += _level(f"{10**decade:g}", _y(decade / decades))
    for at, value in line.points:
        y = _y(math.log10(max(value, 1.0)) / decades)
        parts.append(element("circle", element("title", f"{value:.0f} ms"), kind="c3", cx=_x(at / across), cy=y, r=2.5))
    return _svg(parts)


def lines(series: Sequence[Line]) -> Markup:
    """A line for each, y from 0."""
    points = [point for line in series for point in line.points]
    across, top = max([at for at, _ in points] + [1.0]), max([value for _, value in points] + [1.0])
    parts = _seconds(across)
    for share in (0, 0.5, 1):
        parts += _level(f"{share * top:.0f}", _y(share))
    for i, line in enumerate(series):
        steps = [f"{_x(at / across):.1f} {_y(value / top):.1f}" for at, value in line.points]
        if steps:
            parts.append(element("path", element("title", line.label), kind=f"line c{i % 6}", d="M" + "L".join(steps)))
            parts.append(element("text", line.label, kind=f"c{i % 6}", x=_LEFT + 10, y=_HEIGHT - _BOTTOM - 10 - 16 * i))
    return _svg(parts)


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - 10)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _level(label: str, y: float) -> list[Markup]:
    text = element("text", label, kind="tick", x=_LEFT - 8, y=y + 4, text_anchor="end")
    return [element("path", kind="grid", d=f"M{_LEFT} {y:.1f}H{_WIDTH - 10}"), text]


def _seconds(across: float) -> list[Markup]:
    shares = (0, 0.25, 0.5, 0.75, 1)
    return [
        element("text", f"{share * across:.0f} s", kind="tick", x=_x(share), y=_HEIGHT - 8, text_anchor="middle")
        for share in shares
    ]


def _svg(parts: Sequence[Markup]) -> Markup:
    return element("svg", joined(parts), viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")
