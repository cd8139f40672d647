"""Metadata filters in Pinecone's language, parsed once into a small tree that every backend compiles."""

from dataclasses import dataclass
from typing import Literal

from indexers.base import Scalar

Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value; `value` is a tuple for $in and $nin, a bool for $exists."""

    field: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Filter", ...]


Filter = Comparison | And | Or


def parse_filter(raw: object) -> Filter | None:
    """Parse a filter as it comes over the wire; None or {} means no filter. Raises FilterError, naming what is wrong."""
    raise NotImplementedError
