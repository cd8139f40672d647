"""Elements of HTML and SVG as text: text is escaped, markup is not. A page is built of nothing else."""

from collections.abc import Iterable
from html import escape

_EMPTY = {"path", "rect", "meta", "input"}


class Markup(str):
    """Text that is markup already: nothing in it comes from outside, or it was escaped."""

    __slots__ = ()


def element(name: str, /, *content: str, kind: str = "", **attributes: str | float) -> Markup:
    """One element around its content, of which only Markup is not escaped. `kind` is its class; `text_anchor` becomes
    text-anchor; numbers are written to a hundredth."""
    given = {**({"class": kind.strip()} if kind.strip() else {}), **attributes}
    written = "".join(f' {key.replace("_", "-")}="{_value(value)}"' for key, value in given.items())
    inner = joined(part if isinstance(part, Markup) else Markup(escape(part)) for part in content)
    return Markup(f"<{name}{written}/>" if name in _EMPTY and not inner else f"<{name}{written}>{inner}</{name}>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Parts one after the other."""
    return Markup("".join(parts))


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
