"""A point's version as an OpenSearch document, and back: without its vector, which the dense leg has."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson

from indexers.base import Metadata, Point, StoredPoint
from indexers.bm25 import Bm25
from indexers.keywords import group_keywords, halves, keywords
from indexers.opensearch_places import Place
from indexers.opensearch_query import spelled
from indexers.opensearch_schema import (
    BORN,
    DIED,
    FREQUENCY_MARK,
    FREQUENCY_UNIT,
    GROUPS,
    ID,
    KEYWORDS,
    REST,
    SPACE,
    numeric_field,
)
from indexers.payload import pack, unpack

_NO_VECTOR = np.zeros(0, np.float32)


def version_key(place: Place, point_id: str, born: int) -> str:
    """The document's key: a version is stored beside the next one, and in a shared index beside other namespaces'."""
    parts = f"{place.routing or ''}\0{point_id}\0{born}"
    return blake2b(parts.encode(), digest_size=20).hexdigest()


class Encoder:
    """Points to documents of one namespace."""

    def __init__(self, place: Place) -> None:
        self._place = place
        analyser = place.analyser
        self._bm25 = Bm25(analyser.language) if analyser.analysis == "refdesk" else None

    def encode(self, point: Point, born: int) -> bytes:
        """A checked point as JSON."""
        document: dict[str, object] = _fields(self._place, point, born)
        if point.text:
            document[self._place.text_field] = self._words(point.text)
        return orjson.dumps(document)

    def copy(self, point: Point, source: Mapping[str, Any], born: int) -> bytes:
        """A point with the text of the version it was changed from."""
        document: dict[str, object] = _fields(self._place, point, born)
        if self._place.text_field in source:
            document[self._place.text_field] = source[self._place.text_field]
        return orjson.dumps(document)

    def _words(self, text: str) -> str:
        if self._bm25 is None:
            return text
        terms = self._bm25.frequencies(text)
        whole = np.maximum(1, np.rint(terms.weights * FREQUENCY_UNIT)).astype(int)
        pairs = zip(terms.ids.tolist(), whole.tolist(), strict=True)
        return " ".join(f"{spelled(term)}{FREQUENCY_MARK}{frequency}" for term, frequency in pairs)


def decode(source: Mapping[str, Any]) -> StoredPoint:
    """What a document holds; the point has neither text nor vector (shape (0,))."""
    return StoredPoint(unpack(source[ID], source[REST], _NO_VECTOR), source[BORN], source.get(DIED))


def numeric_names(metadata: Metadata) -> dict[str, str]:
    """The fields that the metadata's numbers need, each with the name that the user gave it."""
    return {numeric_field(name): name for name, value in metadata.items() if type(value) is float}


def _fields(place: Place, point: Point, born: int) -> dict[str, object]:
    numbers = {numeric_field(n): halves(value) for n, value in point.metadata.items() if type(value) is float}
    space = {} if place.routing is None else {SPACE: place.routing}
    return {
        ID: point.id,
        BORN: born,
        GROUPS: group_keywords(point.groups),
        KEYWORDS: keywords(point.metadata),
        REST: pack(point),
        **numbers,
        **space,
    }
