"""Questions of one's own about one's own corpus: a JSONL or CSV file to values, then checked against what is served.

A row has `question` and where its answer stands: `document` (its uri), `page` of that document, `phrase` (words that
answer it, of that document or of any), or several of these together; `id` if wanted. Rows with one id, or without ids
one question, are several answers to it.
"""

import csv
import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.datasets import DatasetError, json_rows, lines
from indexers.structure import Pages
from server.base import NamespaceState, StoredChunk, StoredDocument
from server.catalog import Catalog

_SHOWN = 5  # of what is not in the corpus, in the message
_PAGE = 500  # documents of one catalog read


@dataclass(frozen=True, slots=True)
class Answer:
    """Where an answer stands: in a chunk of this document, on this page of it, with these words; None: anywhere."""

    document: str | None
    page: int | None
    phrase: str | None

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
        ranks_documents = all(answer.page is None and answer.phrase is None for answer in answers)
        found: dict[str, None] = {}
        for chunk in chunks:
            met = [answer.label for answer in answers if self._is_met(answer, chunk)]
            found |= dict.fromkeys(met or [chunk.document_id if ranks_documents else chunk.id])
        return list(found)

    def label(self, item: str) -> str:
        return self._uris.get(item, item)

    def _is_met(self, answer: Answer, chunk: StoredChunk) -> bool:
        if answer.document is not None and answer.document != chunk.uri:
            return False
        if answer.page is not None:
            pages = self._pages[chunk.document_id]
            if not (pages.at(chunk.start) or 0) <= answer.page <= (pages.at(chunk.end - 1) or 0):
                return False
        return answer.phrase is None or folded(answer.phrase) in folded(chunk.text)


def folded(text: str) -> str:
    """What a phrase is compared by: NFC, case and white space aside."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def read_questions(path: Path, limit: int | None = None) -> OwnQuestions:
    """Read a .csv or .jsonl file; `limit`: that many questions at most, evenly spaced. Raises DatasetError."""
    questions: dict[str, str] = {}
    answers: dict[str, list[Answer]] = {}
    for number, row in _csv_rows(path) if path.suffix.lower() == ".csv" else json_rows(path):
        where = f"{str(path)!r}, line {number}"
        text = row.get("question")
        if not isinstance(text, str) or not text.strip():
            raise DatasetError(f"{where}: 'question' is {text!r}, and text is needed")
        id_ = str(row.get("id") or text)
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
    """Hold the answers against what the namespaces hold. Raises DatasetError, naming what is in none of them: a
    question that cannot be answered would count as one that the search does not answer."""
    documents = [document for state in states for document in await _documents(catalog, state)]
    by_uri: dict[str, list[StoredDocument]] = {}
    for document in documents:
        by_uri.setdefault(document.uri, []).append(document)
    missing: list[str] = []
    pages: dict[str, Pages] = {}
    anywhere: set[str] = set()
    for answer in {answer for answers in own.answers.values() for answer in answers}:
        if answer.document is None:
            anywhere.add(folded(answer.phrase or ""))
        elif answer.document not in by_uri:
            missing.append(f"document {answer.document!r}{_closest(answer.document, by_uri)}")
        else:
            missing += await _lacking(answer, catalog, by_uri[answer.document], pages)
    missing += [repr(phrase) for phrase in await _nowhere(anywhere, catalog, documents)]
    if missing:
        more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        corpus = ", ".join(str(state.namespace) for state in states)
        raise DatasetError(f"{str(own.path)!r}: not in {corpus}: {', '.join(sorted(missing)[:_SHOWN])}{more}")
    return JudgedCorpus(own, {document.id: document.uri for document in documents}, pages)


async def _lacking(
    answer: Answer, catalog: Catalog, documents: Sequence[StoredDocument], pages: dict[str, Pages]
) -> list[str]:
    """What of an answer none of the documents of its uri has: the page, the phrase, or both in one of them. Adds the
    documents' `pages` if they are asked for."""
    missing = []
    if answer.page is not None:
        marks = {document.id: await catalog.marks(document.id) for document in documents}
        pages |= {id_: Pages(each) for id_, each in marks.items()}
        paged = [d for d in documents if any(m.kind == "page" and m.level == answer.page for m in marks[d.id])]
        if not paged:
            missing.append(f"page {answer.page} of {answer.document!r}")
        documents = paged or documents
    if answer.phrase is not None and await _nowhere({folded(answer.phrase)}, catalog, documents):
        missing.append(f"{answer.phrase!r} in {answer.document!r}")
    return missing


async def _documents(catalog: Catalog, state: NamespaceState) -> list[StoredDocument]:
    found: list[StoredDocument] = []
    after: str | None = None
    while True:
        page, after = await catalog.documents(state.id, after, _PAGE)
        found += page
        if after is None:
            return found


async def _nowhere(phrases: set[str], catalog: Catalog, documents: Iterable[StoredDocument]) -> set[str]:
    """The phrases, folded, that stand in no document; each document's text is read until every phrase was met."""
    left = set(phrases)
    for document in documents:
        if not left:
            break
        text = folded(await catalog.text(document.id))
        left = {phrase for phrase in left if phrase not in text}
    return left


def _closest(uri: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(uri, known, n=1)
    return f" (is it {close[0]!r}?)" if close else ""


def _answer(row: Mapping[str, object], where: str) -> Answer:
    document, phrase = (str(row[name]).strip() if row.get(name) else None for name in ("document", "phrase"))
    page = row.get("page")
    if page in (None, ""):
        number = None
    elif str(page).strip().isdigit() and int(str(page)) > 0:
        number = int(str(page))
    else:
        raise DatasetError(f"{where}: page {page!r} is no page number: give 1 or more")
    if number is not None and document is None:
        raise DatasetError(f"{where}: page {number} of which document? give 'document' too")
    if not (document or phrase):
        raise DatasetError(f"{where}: has none of 'document', 'phrase' and 'page' to be judged by")
    return Answer(document, number, phrase)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Rows by the header's names; the header's most frequent of comma, semicolon and tab parts the fields."""
    header = next((line for _, line in lines(path)), "")
    reader = csv.DictReader((line for _, line in lines(path)), delimiter=max(",;\t", key=header.count))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as exc:
        raise DatasetError(f"{str(path)!r}, line {reader.line_num}: no CSV ({exc})") from exc
