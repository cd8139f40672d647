"""Plots as SVG, to stand inside a page: bars, curves, a stacked bar, differences. Colours are the page's own.

Numbers enter, markup leaves. Every shape has a <title> that says what it shows, for pointing at it and for a screen
reader.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.markup import Markup, element, joined

_WIDTH = 880
_LABEL = 200  # room for a row's label
_ROW = 30
_TICKS = (1, 2, 3, 5, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value from 0 to 1 with the ends of its interval; `is_strong`: the one that matters."""

    label: str
    value: float
    low: float
    high: float
    is_strong: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """y from 0 to 1 over x of 1 or more, ascending."""

    label: str
    points: Sequence[tuple[float, float]]
    is_strong: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A share of a whole; shares add up to 1."""

    label: str
    share: float
    detail: str = ""


def bars(rows: Sequence[Bar]) -> Markup:
    """A row each, with the value at its end and a whisker over its interval."""
    scale, height = _WIDTH - _LABEL - 70, _ROW * len(rows) + 26
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x = _LABEL + value * scale
        parts.append(element("path", kind="grid", d=f"M{x:.1f} 0V{height - 22}"))
        parts.append(_tick(f"{value:g}", x, height - 6, "middle"))
    for i, row in enumerate(rows):
        top, strong = i * _ROW + 4, "strong" if row.is_strong else ""
        low, high = (_LABEL + min(1, max(0, end)) * scale for end in (row.low, row.high))
        middle = top + _ROW / 2 - 4
        whisker = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
        said = f"{row.label}: {row.value:.3f}, 95 % between {row.low:.3f} and {row.high:.3f}"
        width = max(0.0, row.value) * scale
        parts += [
            element("text", row.label, kind=strong, x=_LABEL - 10, y=middle + 4, text_anchor="end"),
            element(
                "rect", element("title", said), kind=f"bar {strong}", x=_LABEL, y=top, width=width, height=_ROW - 8
            ),
            element("path", kind="whisker", d=whisker),
            element("text", f"{row.value:.3f}", kind=strong, x=high + 8, y=middle + 4),
        ]
    return _svg(height, parts)


def curves(
    series: Sequence[Curve],
    x_label: str,
    *,
    ticks: Sequence[float] = _TICKS,
    scale: Callable[[float], float] = math.log,
) -> Markup:
    """Lines over `scale` of x, from the tenth below the least y, each named at its end, names kept apart."""
    left, right, top, height = 46, 226, 12, 320
    bottom = height - 40
    floor = min(9, math.floor(10 * min((y for curve in series for _, y in curve.points), default=0))) / 10

    def x(value: float) -> float:
        share = (scale(value) - scale(ticks[0])) / (scale(ticks[-1]) - scale(ticks[0]))
        return left + share * (_WIDTH - left - right)

    def y(value: float) -> float:
        return top + (1 - value) / (1 - floor) * (bottom - top)

    parts = []
    for share in (tenth / 10 for tenth in range(round(10 * floor), 11)):
        parts.append(element("path", kind="grid", d=f"M{left} {y(share):.1f}H{_WIDTH - right}"))
        parts.append(_tick(f"{share:.1f}", left - 8, y(share) + 4, "end"))
    for tick in ticks:
        parts.append(element("path", kind="grid", d=f"M{x(tick):.1f} {top}V{bottom}"))
        parts.append(_tick(f"{tick:g}", x(tick), bottom + 16, "middle"))
    parts.append(_tick(x_label, (left + _WIDTH - right) / 2, height - 6, "middle"))
    names = _kept_apart([y(curve.points[-1][1]) for curve in series], 16)
    for i, (curve, at) in enumerate(zip(series, names, strict=True)):
        line = "".join(f"{'L' if n else 'M'}{x(px):.1f} {y(py):.1f}" for n, (px, py) in enumerate(curve.points))
        kind = f"c{i} strong" if curve.is_strong else f"c{i}"
        name = f"{curve.points[-1][1]:.3f}  {curve.label}"
        parts.append(element("path", element("title", curve.label), kind=f"line {kind}", d=line))
        parts.append(element("text", name, kind=kind, x=_WIDTH - right + 8, y=at + 4))
    return _svg(height, parts)


def stacked(shares: Sequence[Part]) -> Markup:
    """One bar cut into shares, with what each is below it."""
    parts, at = [], 0.0
    room = _WIDTH / max(1, len(shares))
    for i, part in enumerate(shares):
        width, legend = part.share * _WIDTH, i * room
        said = element("title", f"{part.label}: {part.share:.1%} {part.detail}")
        parts.append(element("rect", said, kind=f"p{i}", x=at, y=0, width=width, height=30))
        if width > 46:
            parts.append(element("text", f"{part.share:.0%}", kind="inside", x=at + width / 2, y=20))
        parts.append(element("rect", kind=f"p{i}", x=legend, y=42, width=10, height=10))
        parts.append(element("text", part.label, x=legend + 16, y=51))
        parts.append(_tick(f"{part.share:.1%} {part.detail}", legend + 16, 68, "start"))
        at += width
    return _svg(74, parts)


def differences(values: Sequence[float]) -> Markup:
    """Each question's difference, from the greatest gain to the greatest loss; ties are left out."""
    changed = sorted((value for value in values if value), reverse=True)
    height, middle, left = 200, 100, 46
    room = (_WIDTH - left) / max(1, len(changed))
    parts = []
    for share in (-1, -0.5, 0, 0.5, 1):
        at = middle - share * (middle - 12)
        parts.append(element("path", kind="grid", d=f"M{left} {at}H{_WIDTH}"))
        parts.append(_tick(f"{share:+g}" if share else "0", left - 8, at + 4, "end"))
    for i, value in enumerate(changed):
        size, width = abs(value) * (middle - 12), min(max(room * 0.85, 0.4), 14)
        kind, top = ("gain", middle - size) if value > 0 else ("loss", middle)
        said = element("title", f"{value:+.3f}")
        parts.append(element("rect", said, kind=kind, x=left + i * room, y=top, width=width, height=size))
    return _svg(height, parts)


def standalone(plot: Markup, style: str) -> str:
    """A plot as a file of its own, which a page of documentation shows."""
    inner = plot.removesuffix("</svg>").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    head, _, rest = inner.partition(">")
    return f"{head}><style>{style}</style>{rest}</svg>\n"


def _svg(height: float, parts: Sequence[Markup]) -> Markup:
    return element("svg", joined(parts), viewBox=f"0 0 {_WIDTH} {height:.0f}", role="img")


def _tick(text: str, x: float, y: float, anchor: str) -> Markup:
    return element("text", text, kind="tick", x=x, y=y, text_anchor=anchor)


def _kept_apart(wanted: Sequence[float], distance: float) -> list[float]:
    """The heights, moved down as little as keeps each `distance` below the one above it."""
    placed, above = list(wanted), -math.inf
    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        above = placed[i] = max(wanted[i], above + distance)
    return placed
