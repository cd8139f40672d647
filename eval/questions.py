"""Questions of one's own about one's own corpus: a JSONL, CSV or TSV file to values, then held against what is served.

A row has `question` and where its answer stands: `document` (its uri), `page` of that document, `phrase` (words that
answer it, of that document or of any), or several of these together; `id` if wanted. Rows with one id, or without ids
one question, are several answers to it.
"""

import csv
import difflib
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from eval.datasets import DatasetError, json_rows, lines
from indexers.base import Mark
from indexers.structure import Pages
from server.base import NamespaceState, StoredChunk, StoredDocument
from server.catalog import Catalog
from server.catalog_plan import chunk_ids

_SHOWN = 5  # of what is not in the corpus, in the message
_PAGE = 500  # documents of one catalog read


@dataclass(frozen=True, slots=True)
class Answer:
    """Where an answer stands: in a chunk of this document, on this page of it, with these words; None: anywhere."""

    document: str | None
    page: int | None
    phrase: str | None

    @property
    def is_place(self) -> bool:
        """Whether it is a place in a document, not a whole one."""
        return self.page is not None or self.phrase is not None

    @property
    def label(self) -> str:
        page, phrase = f"page {self.page}" if self.page else "", f"“{self.phrase}”" if self.phrase else ""
        return ", ".join(part for part in (self.document or "", page, phrase) if part)


@dataclass(frozen=True, slots=True)
class OwnQuestions:
    """What a file holds, not yet checked against a corpus."""

    path: Path
    questions: Mapping[str, str]
    answers: Mapping[str, Sequence[Answer]]


class JudgedCorpus:
    """Implements Judged over served chunks. Use `check`.

    An answer is found at the first chunk that meets it; a question that asks for whole documents ranks documents, each
    where its best chunk stands, every other one ranks chunks.
    """

    def __init__(self, own: OwnQuestions, uris: Mapping[str, str], pages: Mapping[str, Pages]) -> None:
        """`uris` of all documents and `pages` of those asked for by page, both by document id: namespaces may hold
        different documents of one uri."""
        self.name, self.questions = own.path.stem, own.questions
        self.qrels = {id_: {answer.label: 1 for answer in answers} for id_, answers in own.answers.items()}
        self._answers, self._uris, self._pages = own.answers, uris, pages

    def items(self, question: str, chunks: Sequence[StoredChunk]) -> list[str]:
        """Labels of the answers met; for a chunk that meets none its document's id, or its own where places are asked
        for."""
        answers = self._answers[question]
        ranks_documents = not any(answer.is_place for answer in answers)
        found: dict[str, None] = {}
        for chunk in chunks:
            met = [answer.label for answer in answers if is_met(answer, chunk, self._pages)]
            found |= dict.fromkeys(met or [chunk.document_id if ranks_documents else chunk.id])
        return list(found)

    def label(self, item: str) -> str:
        return self._uris.get(item, item)


def is_met(answer: Answer, chunk: StoredChunk, pages: Mapping[str, Pages]) -> bool:
    """Whether a chunk is of the answer's document, on its page and holds all of its phrase. `pages` by document id."""
    if answer.document is not None and answer.document != chunk.uri:
        return False
    if answer.page is not None:
        of_document = pages[chunk.document_id]
        if not (of_document.at(chunk.start) or 0) <= answer.page <= (of_document.at(chunk.end - 1) or 0):
            return False
    return answer.phrase is None or folded(answer.phrase) in folded(chunk.text)


def folded(text: str) -> str:
    """What a phrase is compared by: NFC, case and white space aside."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def read_questions(path: Path, limit: int | None = None) -> OwnQuestions:
    """Read a .csv, .tsv or .jsonl file; `limit`: that many questions at most, evenly spaced. Raises DatasetError."""
    questions: dict[str, str] = {}
    answers: dict[str, list[Answer]] = {}
    for number, row in _csv_rows(path) if path.suffix.lower() in {".csv", ".tsv"} else json_rows(path):
        where = f"{str(path)!r}, line {number}"
        text = row.get("question")
        if not isinstance(text, str) or not text.strip():
            raise DatasetError(f"{where}: 'question' is {text!r}, and text is needed")
        text = " ".join(text.split())
        id_ = text if row.get("id") in (None, "") else str(row["id"])
        if questions.setdefault(id_, text) != text:
            raise DatasetError(f"{where}: {id_!r} is the id of another question too, {questions[id_]!r}")
        answers.setdefault(id_, []).append(_answer(row, where))
    if not questions:
        raise DatasetError(f"{str(path)!r} holds no question: give rows with question and document, page or phrase")
    kept = list(questions)
    if limit is not None and limit < len(kept):
        kept = [kept[i * len(kept) // limit] for i in range(limit)]
    return OwnQuestions(path, {id_: questions[id_] for id_ in kept}, {id_: answers[id_] for id_ in kept})


async def check(own: OwnQuestions, catalog: Catalog, states: Sequence[NamespaceState]) -> JudgedCorpus:
    """Hold the answers against the namespaces' chunks, by what judges a search. Raises DatasetError, naming what no
    chunk meets: a question that cannot be answered would count as one that the search does not answer."""
    by_document: dict[str | None, list[Answer]] = {}
    for answer in dict.fromkeys(answer for answers in own.answers.values() for answer in answers):
        by_document.setdefault(answer.document, []).append(answer)
    lacks = {answer: _Lack.DOCUMENT for answers in by_document.values() for answer in answers}
    uris: dict[str, str] = {}
    pages: dict[str, Pages] = {}
    for state in states:
        for document in await _documents(catalog, state):
            uris[document.id] = document.uri
            asked = [*by_document.get(document.uri, ()), *by_document.get(None, ())]
            marks: tuple[Mark, ...] = ()
            if any(answer.page is not None for answer in asked):
                marks = await catalog.marks(document.id)
                pages[document.id] = Pages(marks)
            left = [answer for answer in asked if lacks[answer]]
            for answer, lack in (await _lacks(left, catalog, _Held(state, document, marks))).items():
                lacks[answer] = min(lacks[answer], lack)
    known = set(uris.values())
    missing = sorted(_said(answer, lack, known) for answer, lack in lacks.items() if lack)
    if missing:
        more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        corpus = ", ".join(str(state.namespace) for state in states)
        raise DatasetError(f"{str(own.path)!r}: not in {corpus}: {', '.join(missing[:_SHOWN])}{more}")
    return JudgedCorpus(own, uris, pages)


class _Lack(IntEnum):
    """What keeps the chunks of a document from meeting an answer, from nothing to everything."""

    NOTHING, ONE_CHUNK, ANOTHER_PAGE, PHRASE, PAGE, DOCUMENT = range(6)


@dataclass(frozen=True, slots=True)
class _Held:
    """A document that a namespace holds; `marks` if a page of it is asked for."""

    state: NamespaceState
    document: StoredDocument
    marks: Sequence[Mark]


async def _lacks(answers: Sequence[Answer], catalog: Catalog, held: _Held) -> dict[Answer, _Lack]:
    """What each answer lacks in a document of its uri. Chunks are read only if the text holds a phrase or a page is
    asked for, so that a phrase asked for anywhere costs a large corpus one reading of its texts."""
    state, document = held.state, held.document
    text = folded(await catalog.text(document.id)) if any(answer.phrase is not None for answer in answers) else ""
    likely = [answer for answer in answers if answer.phrase is None or folded(answer.phrase) in text]
    chunks: Sequence[StoredChunk] = ()
    if any(answer.is_place for answer in likely):
        ids = chunk_ids(state, document.id, document.version, document.total_chunks)
        chunks = list((await catalog.chunks(state.id, ids, state.commit)).values())
    pages = {document.id: Pages(held.marks)}
    numbers = {mark.level for mark in held.marks if mark.kind == "page"}

    def lack(answer: Answer) -> _Lack:
        if not answer.is_place:
            return _Lack.NOTHING
        if any(is_met(answer, chunk, pages) for chunk in chunks):
            return _Lack.NOTHING
        if answer.phrase is None or (answer.page is not None and answer.page not in numbers):
            return _Lack.PAGE
        if answer not in likely:
            return _Lack.PHRASE
        elsewhere = any(is_met(replace(answer, page=None), chunk, pages) for chunk in chunks)
        return _Lack.ANOTHER_PAGE if elsewhere else _Lack.ONE_CHUNK

    return {answer: lack(answer) for answer in answers}


def _said(answer: Answer, lack: _Lack, uris: Collection[str]) -> str:
    """What is missing, for people."""
    page = f"page {answer.page} of {answer.document!r}"
    phrase = repr(answer.phrase) + (f" in {answer.document!r}" if answer.document is not None else "")
    match lack:
        case _Lack.ONE_CHUNK:
            return f"{phrase} within one chunk (it stands across several: give fewer of its words)"
        case _Lack.ANOTHER_PAGE:
            return f"{answer.phrase!r} on {page} (it stands on another page)"
        case _Lack.PAGE:
            return page
        case _Lack.DOCUMENT if answer.document is not None:
            return f"document {answer.document!r}{_closest(answer.document, uris)}"
        case _:
            return phrase


async def _documents(catalog: Catalog, state: NamespaceState) -> list[StoredDocument]:
    found: list[StoredDocument] = []
    after: str | None = None
    while True:
        page, after = await catalog.documents(state.id, after, _PAGE)
        found += page
        if after is None:
            return found


def _closest(uri: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(uri, known, n=1)
    return f" (is it {close[0]!r}?)" if close else ""


def _answer(row: Mapping[str, object], where: str) -> Answer:
    document, phrase = (str(row[name]).strip() if row.get(name) else None for name in ("document", "phrase"))
    page = row.get("page")
    if page in (None, ""):
        number = None
    elif str(page).strip().isdecimal() and int(str(page)) > 0:
        number = int(str(page))
    else:
        raise DatasetError(f"{where}: page {page!r} is no page number: give 1 or more")
    if number is not None and document is None:
        raise DatasetError(f"{where}: page {number} of which document? give 'document' too")
    if not (document or phrase):
        raise DatasetError(f"{where}: has none of 'document', 'phrase' and 'page' to be judged by")
    return Answer(document, number, phrase)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Rows by the header's names; the header's most frequent of comma, semicolon and tab parts the fields, of a .tsv a
    tab."""
    header = next((line for _, line in lines(path)), "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    reader = csv.DictReader((line for _, line in lines(path)), delimiter=delimiter)
    try:
        for row in reader:
            if None in row:  # where csv puts what no name of the header is for
                raise DatasetError(
                    f"{str(path)!r}, line {reader.line_num}: has more fields than the header: put a text that holds "
                    f"{delimiter!r} into double quotes"
                )
            yield reader.line_num, {name.strip(): value for name, value in row.items()}
    except csv.Error as exc:
        raise DatasetError(f"{str(path)!r}, line {reader.line_num}: no CSV ({exc})") from exc
