"""The real files of ../shared/data/files, against what must be found in them; not part of a clean clone."""

import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexers.base import Document, UnreadableError
from indexers.read import read

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "files"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no {FOLDER}")

# Formats of a later issue, and structure that a plain reading does not show.
LATER = {".odt", ".rst", ".msg", ".zip"}
REASONS = {
    "no text (needs OCR)": {"no text"},
    "too large when expanded": {"too large", "corrupt"},
    "too deep": {"too large"},
    "unreadable encoding": {"type mismatch"},
}


def expectations() -> list[dict[str, Any]]:
    if not FOLDER.is_dir():
        return []
    files = json.loads((FOLDER / "expectations.json").read_text())["files"]
    return [f for f in files if (FOLDER / f["file"]).is_file() and Path(f["file"]).suffix not in LATER]


def words(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def parts(document: Document, kind: str, wanted: object) -> list[str]:
    """The text from each mark that is the wanted page or heading (its number aside) to the next mark of its kind."""
    marks = [m for m in document.marks if m.kind == kind]
    ends = [*(m.start for m in marks[1:]), len(document.text)]
    return [
        words(document.text[m.start : end])
        for m, end in zip(marks, ends, strict=True)
        if (m.level == wanted if kind == "page" else re.sub(r"^[\d.]+ ", "", m.text) == words(str(wanted)))
    ]


def member(document: Document, name: str) -> Document:
    """What stands under the heading of an attachment, to the next heading that is no deeper."""
    marks = sorted(document.marks, key=lambda mark: mark.start)
    (at,) = (i for i, mark in enumerate(marks) if mark.kind == "heading" and mark.text == name)
    after = [m.start for m in marks[at + 1 :] if m.kind == "heading" and m.level <= marks[at].level]
    start, end = marks[at].start, min(after, default=len(document.text))
    inside = tuple(replace(mark, start=mark.start - start) for mark in marks if start <= mark.start < end)
    return replace(document, text=document.text[start:end], marks=inside)


def found(documents: tuple[Document, ...], expected: dict[str, Any]) -> bool:
    phrase = words(expected["text"])
    if "line" in expected:
        documents = tuple(d for d in documents if d.uri.endswith(f"#{expected['line']}"))
        assert [d.metadata["id"] for d in documents] == [expected["id"]]
    if "header" in expected:
        return any(phrase in words(document.title) for document in documents)
    if "member" in expected:
        documents = tuple(member(document, expected["member"]) for document in documents)
    places = [("page", "page"), ("heading", "heading"), ("sheet", "heading"), ("heading_if_known", "heading")]
    for key, kind in places:
        if key in expected:
            return any(phrase in part for d in documents for part in parts(d, kind, expected[key]))
    return any(phrase in words(d.text) for d in documents)


@pytest.mark.parametrize("expected", expectations(), ids=lambda e: str(e["file"]))
def test_file(expected: dict[str, Any]) -> None:
    data = (FOLDER / expected["file"]).read_bytes()
    if expected["outcome"] == "refused":
        with pytest.raises(UnreadableError) as caught:
            read(data, expected["file"], max_bytes=100 * 2**20)
        assert caught.value.reason in REASONS.get(expected["reason"], {expected["reason"]})
        return
    result = read(data, expected["file"], max_bytes=100 * 2**20)
    for phrase in expected["expect"]:
        assert found(result.documents, phrase), phrase
    for absent in expected.get("absent", []):
        assert not any(absent in d.text for d in result.documents)
    assert len(result.documents) == expected.get("documents", 1)
    if expected["file"].endswith(".eml") and expected["outcome"] == "partial":
        (failure,) = result.failures
        assert failure.reason == "corrupt"
        assert "log.csv" in failure.detail
    else:
        assert [f.source.rsplit("#", 1)[1] for f in result.failures] == list(map(str, expected.get("bad_lines", [])))
    assert result.documents[0].title == expected.get("title", result.documents[0].title)
