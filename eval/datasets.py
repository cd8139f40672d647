"""A data set in BEIR's layout, from files to values: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv.

The corpus itself stays in its file, which is ingested as any JSONL is; here is only which line holds which document.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.judged import fingerprint
from server.base import InvalidRequestError, StoredChunk

_QRELS = ("qrels.tsv", "qrels/test.tsv")


class DatasetError(InvalidRequestError):
    """A data set that cannot be used; names the file and the line."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Documents, questions and judgements. Implements Judged.

    `documents` maps a line of `corpus`, counted from 1, to the document's id; `titles` an id to its title; `questions`
    an id to its words, in the order of the file, those with a judgement above 0 only; `qrels` a question's id to the
    grades of its documents.
    """

    name: str
    corpus: Path
    documents: Mapping[int, str]
    titles: Mapping[str, str]
    questions: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def items(self, question: str, chunks: Sequence[StoredChunk]) -> list[str]:
        """The documents, each once, where its first chunk stands."""
        return list(dict.fromkeys(self.documents[int(chunk.uri.rpartition("#")[2])] for chunk in chunks))

    def label(self, item: str) -> str:
        """Id and title."""
        return f"{item}: {self.titles[item]}" if self.titles.get(item) else item

    def digest(self) -> str:
        """What results may be kept under: of the corpus's bytes, the questions and the judgements."""
        with self.corpus.open("rb") as corpus:
            content = hashlib.file_digest(corpus, "sha256").hexdigest()
        return hashlib.sha256(f"{content} {fingerprint(self)}".encode()).hexdigest()[:12]


def read_dataset(folder: Path, limit: int | None = None) -> Dataset:
    """Read a folder; `limit`: that many questions at most, evenly spaced. Raises DatasetError."""
    corpus = folder / "corpus.jsonl"
    documents, titles = dict[int, str](), dict[str, str]()
    for number, row in json_rows(corpus):
        documents[number] = _string(row, "_id", corpus, number)
        titles[documents[number]] = str(row.get("title") or "")
    if len(set(documents.values())) < len(documents):
        raise DatasetError(f"{_repeated(corpus, documents)}: every document needs an id of its own")
    queries = folder / "queries.jsonl"
    asked: dict[str, str] = {}
    for number, row in json_rows(queries):
        id_, text = _string(row, "_id", queries, number), _string(row, "text", queries, number)
        if id_ in asked:
            raise DatasetError(f"{str(queries)!r}, line {number}: {id_!r} is the id of an earlier question too")
        asked[id_] = text
    qrels = _read_qrels(folder, set(documents.values()), set(asked))
    judged = [id_ for id_ in asked if any(grade > 0 for grade in qrels.get(id_, {}).values())]
    if not judged:
        raise DatasetError(f"{str(queries)!r}: none of {len(asked)} questions has a document judged above 0")
    if limit is not None and limit < len(judged):
        judged = [judged[i * len(judged) // limit] for i in range(limit)]
    return Dataset(
        name=folder.resolve().name,
        corpus=corpus,
        documents=documents,
        titles=titles,
        questions={id_: asked[id_] for id_ in judged},
        qrels={id_: qrels[id_] for id_ in judged},
    )


def _read_qrels(folder: Path, documents: set[str], questions: set[str]) -> dict[str, dict[str, int]]:
    path = next((folder / name for name in _QRELS if (folder / name).is_file()), folder / _QRELS[0])
    qrels: dict[str, dict[str, int]] = {}
    for number, line in lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if not line.strip():
            continue
        if number == 1 and not fields[-1].removeprefix("-").isdecimal():  # the header
            continue
        if len(fields) != 3 or not fields[2].removeprefix("-").isdecimal():
            raise DatasetError(
                f"{str(path)!r}, line {number}: {line.strip()!r} is not question id, document id and a whole number, "
                "with a tab between each"
            )
        question, document, grade = fields
        if question not in questions:
            raise DatasetError(f"{str(path)!r}, line {number}: question {question!r} is not in queries.jsonl")
        if document not in documents:
            raise DatasetError(f"{str(path)!r}, line {number}: document {document!r} is not in corpus.jsonl")
        if qrels.setdefault(question, {}).setdefault(document, int(grade)) != int(grade):
            raise DatasetError(
                f"{str(path)!r}, line {number}: {document!r} is judged {grade} for question {question!r}, and "
                f"{qrels[question][document]} on an earlier line"
            )
    return qrels


def json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise DatasetError(f"{str(path)!r}, line {number}: no JSON ({exc})") from exc
        if not isinstance(row, dict):
            raise DatasetError(f"{str(path)!r}, line {number}: a JSON object is needed, not {line.strip()[:40]!r}")
        yield number, row


def lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError as exc:
        wanted = "corpus.jsonl, queries.jsonl and qrels.tsv (or qrels/test.tsv)"
        raise DatasetError(f"{str(path)!r} is not there: a data set in BEIR's layout has {wanted}") from exc
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{str(path)!r} is not UTF-8 ({exc.reason} at byte {exc.start})") from exc


def _string(row: Mapping[str, object], name: str, path: Path, number: int) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{str(path)!r}, line {number}: {name!r} is {value!r}, and text is needed")
    return value


def _repeated(path: Path, ids: Mapping[int, str]) -> str:
    """Names the first line whose id an earlier one has."""
    seen: dict[str, int] = {}
    for number, id_ in ids.items():
        if id_ in seen:
            return f"{str(path)!r}, line {number}: {id_!r} is the id of line {seen[id_]} too"
        seen[id_] = number
    raise AssertionError("no id is repeated")
