"""The text leg on OpenSearch as far as it needs no server: errors, bulk answers, what is unseen, queries."""

import inspect
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opensearchpy import exceptions as refusals

from indexers.base import CollectionSpec, IndexerError, IndexUnavailableError, NamespaceNotFoundError, Point, View
from indexers.bm25 import K1, Bm25
from indexers.filter import parse_filter
from indexers.opensearch_bulk import BULK_BYTES, BULK_OPERATIONS, Operation, StaleMappingError, batches, judge
from indexers.opensearch_client import map_errors
from indexers.opensearch_payload import Encoder
from indexers.opensearch_places import Place
from indexers.opensearch_query import MAX_TERMS, scored, spelled, visible
from indexers.opensearch_schema import FREQUENCY_MARK, FREQUENCY_UNIT, Analyser
from indexers.opensearch_unseen import Unseen

PLACE = Place("refdesk-own-docs-1", None, "x", Analyser("refdesk", "english"))
SHARED = Place("refdesk-shared-1", "abc", "x_abc", Analyser("refdesk", "english"))


# --- errors --------------------------------------------------------------------------------------------------------


def raised_by_the_library() -> list[type[Exception]]:
    classes = [cls for _, cls in inspect.getmembers(refusals, inspect.isclass) if issubclass(cls, Exception)]
    return [cls for cls in classes if cls.__module__ == refusals.__name__ and not issubclass(cls, Warning)]


@pytest.mark.parametrize("cls", raised_by_the_library())
def test_every_error_of_the_library_becomes_one_of_ours(cls: type[Exception]) -> None:
    exc = cls(500, "some_kind", {}) if issubclass(cls, refusals.TransportError) else cls("it said so")
    with pytest.raises(IndexerError) as mapped, map_errors("a request"):
        raise exc
    assert mapped.value.__cause__ is exc
    assert "OpenSearch" in str(mapped.value)


def refusal(status: int, kind: str, reason: str) -> refusals.TransportError:
    info = {"error": {"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason}}
    cls = refusals.HTTP_EXCEPTIONS.get(status, refusals.TransportError)
    return cls(status, kind, info)


@pytest.mark.parametrize(
    ("exc", "ours", "said"),
    [
        (refusal(404, "index_not_found_exception", "no such index [x]"), NamespaceNotFoundError, "no such index"),
        (refusal(404, "search_context_missing_exception", "No search context"), IndexUnavailableError, "No search"),
        (refusal(403, "security_exception", "no permissions for [indices:x]"), IndexUnavailableError, "no permissions"),
        (refusal(401, "x", "y"), IndexUnavailableError, "opensearch_password_file"),
        (refusal(503, "x", "not now"), IndexUnavailableError, "503: not now"),
        (refusal(400, "x", "failed to parse. Preview of field's value: 'secret'"), IndexUnavailableError, "to parse."),
        (refusals.SSLError("N/A", "unknown CA", None), IndexUnavailableError, "opensearch_ca_file"),
        (refusals.ConnectionTimeout("TIMEOUT", "", None), IndexUnavailableError, "no answer in time"),
        (refusals.ConnectionError("N/A", "refused", None), IndexUnavailableError, "opensearch_urls"),
        (refusals.SerializationError("<html>"), IndexUnavailableError, "is it OpenSearch"),
    ],
)
def test_an_error_says_what_and_the_way_out(exc: Exception, ours: type[IndexerError], said: str) -> None:
    with pytest.raises(ours) as mapped, map_errors("a request"):
        raise exc
    assert said in str(mapped.value)
    assert "secret" not in str(mapped.value)


# --- bulk ----------------------------------------------------------------------------------------------------------


def operation(action: Any, key: str = "k", document: bytes = b"{}") -> Operation:
    return Operation(action, "alias", key, None, document)


def answer(action: str, status: int, kind: str | None = None) -> dict[str, Any]:
    return {action: {"status": status, **({"error": {"type": kind, "reason": f"because {kind}"}} if kind else {})}}


def test_each_item_is_judged_by_itself() -> None:
    operations = [operation(a, str(i)) for i, a in enumerate(["index", "index", "update", "update", "delete", "index"])]
    lines = [(each, each.encoded()) for each in operations]
    items = [
        answer("index", 201),
        answer("index", 429, "rejected_execution_exception"),
        answer("update", 404, "document_missing_exception"),
        answer("update", 409, "version_conflict_engine_exception"),
        answer("delete", 404),
        answer("index", 503, "unavailable_shards_exception"),
    ]
    again, why = judge(lines, items)
    assert [each.key for each, _ in again] == ["1", "3", "5"]
    assert "because" in str(why)
    assert judge(lines[:1], items[:1]) == ([], None)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "mapper_parsing_exception", IndexUnavailableError),
        (403, "cluster_block_exception", IndexUnavailableError),
        (404, "index_not_found_exception", NamespaceNotFoundError),
        (400, "strict_dynamic_mapping_exception", StaleMappingError),
    ],
)
def test_what_is_refused_for_good_raises(status: int, kind: str, error: type[IndexerError]) -> None:
    with pytest.raises(error, match=kind):
        judge([(operation("index"), b"")] * 2, [answer("index", status, kind), answer("index", 429, "x")])


@given(st.lists(st.integers(0, 3 * BULK_BYTES // 2), max_size=12), st.integers(0, 2 * BULK_OPERATIONS))
def test_requests_are_bounded_and_hold_every_operation_once(sizes: list[int], small: int) -> None:
    operations = [operation("index", str(i), b"x" * size) for i, size in enumerate([*sizes, *[10] * small])]
    found = list(batches(operations))
    assert [each for batch in found for each, _ in batch] == operations
    for batch in found:
        assert len(batch) <= BULK_OPERATIONS
        assert len(batch) == 1 or sum(len(line) for _, line in batch) <= BULK_BYTES


def test_lines_are_what_the_cluster_reads() -> None:
    assert operation("delete").encoded() == b'{"delete":{"_index":"alias","_id":"k"}}\n'
    routed = Operation("update", "alias", "k", "abc", b'{"d":1}')
    head, body, rest = routed.encoded().split(b"\n")
    assert orjson.loads(head) == {"update": {"_index": "alias", "_id": "k", "routing": "abc"}}
    assert (orjson.loads(body), rest) == ({"doc": {"d": 1}}, b"")


# --- texts ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["pump", "valve", "motor", "seal", "water", "the", "of"]), max_size=300))
def test_frequencies_have_the_length_norm_in_them(words: list[str]) -> None:
    """The cluster's formula over what is sent, b = 0 and k1 in the same unit, is the embedded profile's."""
    text = " ".join(words)
    document = orjson.loads(Encoder(PLACE).encode(Point("a", np.zeros(8, np.float32), text), 1))
    sent = [term.split(FREQUENCY_MARK) for term in document.get("x", "").split()]
    k1 = K1 * FREQUENCY_UNIT
    scores = {term: int(freq) * (K1 + 1) / (int(freq) + k1) for term, freq in sent}
    expected = Bm25("english").document(text)
    assert scores == pytest.approx(
        {spelled(term): weight for term, weight in zip(expected.ids.tolist(), expected.weights.tolist(), strict=True)},
        rel=1e-2,
    )


# --- what a search may not see yet ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.integers(1, 5)), max_size=6), st.integers(0, 6))
def test_unseen_writes_are_known_by_id_and_commit(writes: list[tuple[set[str], int]], until: int) -> None:
    unseen = Unseen()
    for ids, commit in writes:
        unseen.note(ids, commit)
    assert unseen.hides() == bool(writes)
    assert unseen.hides(until) == any(commit <= until for _, commit in writes)
    for id_ in "abcd":
        expected = any(id_ in ids and commit <= until for ids, commit in writes)
        assert unseen.hides(until, [id_]) == expected
    before = unseen.taken()
    assert not unseen.hides()
    unseen.note(["e"], 3)
    unseen.put_back(before)
    assert unseen.hides(until) == any(commit <= until for _, commit in [*writes, ((), 3)])
    assert unseen.hides(3, ["e"])


def test_more_unseen_ids_than_are_kept_count_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.opensearch_unseen._MOST_IDS", 3)
    unseen = Unseen()
    unseen.note("abcd", 2)
    assert unseen.hides(2, ["z"])
    assert not unseen.hides(1, ["a"])


# --- queries -------------------------------------------------------------------------------------------------------


def test_a_question_is_its_terms_as_often_as_they_occur() -> None:
    query: Any = scored(PLACE, "Pumps and the pump, a valve")
    clauses = [clause["term"]["x"] for clause in query["bool"]["should"]]
    assert [clause["boost"] for clause in clauses] == pytest.approx([2 * 2.2, 2.2])
    assert scored(PLACE, "of the and") is None
    long: Any = scored(SHARED, " ".join(f"word{i}" for i in range(3000)) + " twice twice")
    terms = [clause["term"]["x_abc"] for clause in long["bool"]["should"]]
    assert len(terms) == MAX_TERMS
    assert terms[0]["boost"] == pytest.approx(4.4)


def test_the_clusters_own_analysis_gets_the_question_as_it_is() -> None:
    place = Place("a", None, "x", Analyser("opensearch", "german"))
    assert place.analyser.name == "german"
    assert scored(place, "Über Pumpen") == {"match": {"x": {"query": "Über Pumpen", "boost": pytest.approx(2.2)}}}
    assert Analyser("opensearch", "none").name == Analyser("opensearch", "hebrew").name == "standard"
    with pytest.raises(IndexerError, match="klingon"):
        Analyser.of(CollectionSpec("docs", 8, language="klingon"), "opensearch")


def test_a_view_is_said_by_what_must_not_hold() -> None:
    found: Any = visible(SHARED, View(3, frozenset({"b", "a"}), parse_filter({"x": {"$ne": 1}})))
    assert found["bool"]["must_not"][:2] == [{"range": {"b": {"gt": 3}}}, {"range": {"d": {"lte": 3}}}]
    assert found["bool"]["filter"] == [{"term": {"s": "abc"}}, {"terms": {"g": ["*", "+a", "+b"]}}]
    assert len(found["bool"]["must_not"]) == 3
    everything: Any = visible(PLACE, None)
    assert everything == {"bool": {"must": [], "filter": [], "must_not": []}}
