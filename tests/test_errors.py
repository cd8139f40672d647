"""The table of errors covers every class of every tree, and tells the client nothing that it should not know."""

import importlib
import logging
import pkgutil
from collections.abc import Iterator

import orjson
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import indexers
import models
import server
from indexers.base import FilterError, IndexerError, UnreadableError
from models.base import ModelError
from server.base import CatalogUnavailableError, InvalidRequestError, OverloadedError, ServerError, UnauthorizedError
from server.errors import TABLE, failure_of, respond, rule_of

SECRET = "the patient's name is Jane Doe"


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    """The classes that a request can meet; eval has errors of its own above them, and no face."""
    if not root.__module__.startswith("eval."):
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


SCRIPTS = ("__main__", "migrations.env")
"""Modules that run on import, the second inside Alembic alone."""


def import_all() -> None:
    """Import every module, so that every subclass exists; tests' own are none of these trees."""
    for package in (models, indexers, server):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(SCRIPTS):
                import_if_installed(module.name)


def import_if_installed(name: str) -> None:
    """Torch is no part of the base install; its module raises only classes of models.base."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name not in {"torch", "sentence_transformers"}:
            raise


@pytest.mark.parametrize("root", [ModelError, IndexerError, ServerError])
def test_every_class_of_the_tree_is_in_the_table(root: type[Exception]) -> None:
    """A class of one backend alone takes the rule of the class above it, which is never the root's."""
    import_all()
    shared = [cls for cls in tree(root) if cls.__module__ == root.__module__]
    assert [cls.__qualname__ for cls in shared if cls not in TABLE] == []
    backends = [cls for cls in tree(root) if cls.__module__ != root.__module__ and cls not in TABLE]
    assert [cls.__qualname__ for cls in backends if rule_of(cls()) == TABLE[root]] == []


def test_codes_and_statuses_are_well_formed() -> None:
    for cls, rule in TABLE.items():
        assert 400 <= rule.status <= 599, cls
        assert rule.code.isidentifier(), cls
        assert rule.code == rule.code.lower(), cls


def test_a_subclass_without_a_rule_takes_that_of_the_nearest_class_above() -> None:
    class OddFilterError(FilterError):
        pass

    assert rule_of(OddFilterError("x")) == TABLE[FilterError]
    del OddFilterError


def body_of(error: Exception) -> dict[str, object]:
    body = orjson.loads(respond(error).body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error_body: dict[str, object] = body["error"]
    return error_body


def test_the_shape_is_openais() -> None:
    assert body_of(InvalidRequestError("top_k=0: at least 1", "top_k")) == {
        "message": "top_k=0: at least 1",
        "type": "invalid_request_error",
        "param": "top_k",
        "code": "invalid_request",
    }
    assert body_of(FilterError("unknown operator '$near'"))["param"] == "filter"
    assert body_of(UnreadableError("a.pdf", "encrypted", "needs a password"))["code"] == "unreadable"


def test_too_many_requests_say_when_to_come_back() -> None:
    response = respond(OverloadedError("full", retry_after_s=2.4))
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert respond(OverloadedError("full", retry_after_s=0.1)).headers["retry-after"] == "1"


def test_a_missing_key_asks_for_one() -> None:
    response = respond(UnauthorizedError("no key"))
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("error", [ValueError(SECRET), ServerError(SECRET), CatalogUnavailableError(SECRET)])
def test_a_fault_of_ours_has_an_id_and_no_text(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "refdesk.http"):
        try:
            raise error
        except Exception as exc:
            failure = failure_of(exc)
    (record,) = caplog.records
    assert record.error_id in failure.message
    assert "test_errors.py" in record.places[-1]
    assert SECRET not in failure.message
    assert SECRET not in str(record.__dict__)


def test_validation_names_the_field_and_the_value() -> None:
    complaint = {"type": "int_type", "loc": ("body", "top_k"), "msg": "Input should be an integer", "input": "many"}
    failure = failure_of(RequestValidationError([complaint]))
    assert (failure.status, failure.param) == (400, "top_k")
    assert failure.message == "top_k: Input should be an integer, not 'many'"


def test_a_union_names_the_field_not_the_branch() -> None:
    complaint = {"type": "string_type", "loc": ("body", "input", "list[constrained-str]", 3), "msg": "no", "input": {}}
    assert failure_of(RequestValidationError([complaint])).param == "input"


def test_malformed_json_is_said_to_be_so() -> None:
    complaint = {"type": "json_invalid", "loc": ("body", 7), "msg": "…", "input": {}, "ctx": {"error": "Expecting ':'"}}
    failure = failure_of(RequestValidationError([complaint]))
    assert (failure.status, failure.code) == (400, "invalid_json")
    assert "Expecting ':'" in failure.message


def test_starlettes_own_refusals_have_the_same_shape() -> None:
    assert body_of(HTTPException(405))["code"] == "method_not_allowed"
    assert body_of(HTTPException(413, "too large"))["code"] == "request_too_large"
