"""What a view and a question mean to OpenSearch: JSON of its query language."""

from collections.abc import Iterator, Sequence

from indexers.base import View
from indexers.bm25 import K1, Bm25
from indexers.keywords import compile_filter, conjuncts, readable_keywords
from indexers.opensearch_places import Place
from indexers.opensearch_schema import BORN, DIED, GROUPS, ID, KEYWORDS, SPACE, numeric_field

Query = dict[str, object]

# A cluster takes 1,024 clauses by default, and a filter may have 256 comparisons.
MAX_TERMS = 512  # of a question; the most frequent ones, then the first
_BOOST = K1 + 1  # the factor of the formula that Lucene leaves out, as it changes no order


class _Conditions:
    """Implements keywords.Dialect."""

    def has_any(self, keywords: Sequence[str]) -> Query:
        return {"terms": {KEYWORDS: list(keywords)}}

    def between(self, field: str, first: int, last: int) -> Query:
        return {"range": {numeric_field(field): {"gte": first, "lte": last}}}

    def every(self, parts: Sequence[Query]) -> Query:
        return {"bool": {"filter": list(parts)}}

    def some(self, parts: Sequence[Query]) -> Query:
        return {"bool": {"should": list(parts), "minimum_should_match": 1}}

    def no(self, part: Query) -> Query:
        return {"bool": {"must_not": [part]}}

    def nothing(self) -> Query:
        return {"match_none": {}}


def visible(place: Place, view: View | None, *more: Query, scored_by: Query | None = None) -> Query:
    """What a view sees of a namespace, or with None every version; `more` must hold too. Scores are `scored_by`'s."""
    wanted: list[Query] = [*_space(place), *more]
    unwanted: list[Query] = []
    if view is not None:
        unwanted += [{"range": {BORN: {"gt": view.snapshot}}}, {"range": {DIED: {"lte": view.snapshot}}}]
        if view.groups is not None:
            wanted.append({"terms": {GROUPS: readable_keywords(view.groups)}})
        to = _Conditions()
        must, must_not = conjuncts(view.filter)
        wanted += [compile_filter(part, to) for part in must]
        unwanted += [compile_filter(part, to) for part in must_not]
    return {"bool": {"must": [scored_by] if scored_by else [], "filter": wanted, "must_not": unwanted}}


def live(place: Place, ids: Sequence[str], born_before: int) -> Query:
    """The versions under these ids that have not died and were born before that commit."""
    wanted = [*_space(place), under(ids), {"range": {BORN: {"lt": born_before}}}]
    return {"bool": {"filter": wanted, "must_not": [{"exists": {"field": DIED}}]}}


def under(ids: Sequence[str]) -> Query:
    return {"terms": {ID: list(ids)}}


def stamped(field: str, **limits: int) -> Query:
    return {"range": {field: limits}}


def scored(place: Place, question: str) -> Query | None:
    """The question's terms, each as often as it occurs; None if there is none."""
    field, boost = place.text_field, _BOOST
    if place.analyser.analysis == "opensearch":
        return {"match": {field: {"query": question, "boost": boost}}} if question.strip() else None
    terms = Bm25(place.analyser.language).question(question)
    counts = sorted(zip(terms.ids.tolist(), terms.weights.tolist(), strict=True), key=lambda pair: -pair[1])
    clauses = [{"term": {field: {"value": spelled(t), "boost": boost * n}}} for t, n in counts[:MAX_TERMS]]
    return {"bool": {"should": clauses}} if clauses else None


def spelled(term: int) -> str:
    """A hashed term as a word for the cluster."""
    return f"{term & 0xFFFFFFFF:x}"


def _space(place: Place) -> Iterator[Query]:
    if place.routing is not None:
        yield {"term": {SPACE: place.routing}}
