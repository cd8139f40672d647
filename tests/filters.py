"""Hypothesis strategies: metadata whose fields mix types, and filters in the wire's language that fit them."""

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from indexers.base import Metadata, MetadataValue

NAMES = ("a", "b", "a.b", 'q"[0]', "ключ")
STRINGS = ("x", "y", "5", "true", "", "é", "x" * 200, "x" * 199 + "y", '"', "東京")
NUMBERS = (0.0, -0.0, 1.0, 5.0, -5.5, 2.0**53, 1e-300, -1e300, 1e300, 1.0 + 2**-52, 4.9e-324, 1.7976931348623157e308)

_numbers = st.sampled_from(NUMBERS) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-20, 20)
_scalars = st.sampled_from(STRINGS) | _numbers | st.booleans()
_KINDS = ("value", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists")


@st.composite
def metadata(draw: DrawFn) -> Metadata:
    """Up to four fields, each a string, a number, a boolean or a list of strings."""
    found: dict[str, MetadataValue] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=4, unique=True)):
        value = draw(st.lists(st.sampled_from(STRINGS), max_size=3) | _scalars)
        found[name] = value if isinstance(value, bool | str | list) else float(value)
    return found


@st.composite
def raw_filters(draw: DrawFn, depth: int = 2) -> dict[str, object]:
    """A filter as it comes over the wire, valid, at most `depth` junctions deep."""
    junction = draw(st.sampled_from(["$and", "$or", "", ""])) if depth else ""
    if junction:
        return {junction: draw(st.lists(raw_filters(depth - 1), min_size=1, max_size=3))}
    return {name: _condition(draw) for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2))}


def _condition(draw: DrawFn) -> object:
    kinds = draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=2))
    if "value" in kinds:
        return draw(_scalars)
    return {kind: _operand(draw, kind) for kind in kinds}


def _operand(draw: DrawFn, kind: str) -> object:
    if kind in ("$in", "$nin"):
        return draw(st.lists(_scalars, max_size=3))
    if kind == "$exists":
        return draw(st.booleans())
    return draw(_scalars if kind in ("$eq", "$ne") else _numbers)
