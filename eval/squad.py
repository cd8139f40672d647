"""SQuAD 2.0 as a corpus that is served and asked: its paragraphs ingested, its questions put to the pipeline.

Three kinds of questions: answerable ones, adversarial ones that no paragraph answers though it looks so, and foreign
ones (SciFact's claims), of which the corpus knows nothing.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eval.datasets import Dataset, read_dataset
from eval.evaluation import ingest
from eval.run import settings_for
from models.base import Message
from server.answerable import answerability
from server.base import Answer, AnswerRequest, NamespaceState, SearchRequest, SearchResult, StoredChunk
from server.build import Desk, build
from server.pipeline import Pipeline

T = TypeVar("T")

KINDS = ("answerable", "adversarial", "foreign")
_FILES = ("squad/queries.jsonl", "squad/unanswerable.jsonl", "scifact/queries.jsonl")
FOLDER = Path(".cache/eval/desk")  # where `refdesk eval --keep` may have put the same namespace


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the paragraph it was written for, and its gold answers: none if it cannot be answered."""

    id: str
    text: str
    paragraph: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of one of KINDS, what the search found for it, and how answerable that makes it."""

    kind: str
    question: Question
    result: SearchResult
    score: float


@dataclass(frozen=True, slots=True)
class Squad:
    """A desk that serves SQuAD's paragraphs."""

    desk: Desk
    state: NamespaceState
    dataset: Dataset

    def request(self, question: str) -> SearchRequest:
        """The question as the routes ask it, without a key's limits."""
        namespace = self.state.namespace
        return SearchRequest(question, namespace.collection.name, (namespace.name,), self.desk.settings.top_k)

    async def answer(self, question: str, pipeline: Pipeline | None = None) -> Answer:
        """The whole answer, at temperature 0; `pipeline`: one over the same desk with other settings."""
        request = AnswerRequest((Message("user", question),), self.request(question), temperature=0)
        async for event in (pipeline or self.desk.pipeline).answer(request):
            if isinstance(event, Answer):
                return event
        raise AssertionError("an answer ends with itself")

    async def ask(self, kind: str, question: Question) -> Asked:
        """What a search finds."""
        result = await self.desk.pipeline.search(self.request(question.text))
        return Asked(kind, question, result, answerability(result))

    def paragraph_of(self, chunk: StoredChunk) -> str:
        """The id of the paragraph that a chunk is of."""
        return self.dataset.items("", [chunk])[0]


@asynccontextmanager
async def serve_squad(data: Path, folder: Path = FOLDER, **settings: object) -> AsyncIterator[Squad]:
    """A desk over `folder`, into which SQuAD is ingested unless it is there (a minute)."""
    dataset = read_dataset(data / "squad")
    desk = await build(settings_for(dataset, folder, settings), command="eval")
    try:
        corpus = await ingest(desk, dataset)
        yield Squad(desk, corpus.states[0], dataset)
    finally:
        await desk.close()


async def ask_all(squad: Squad, data: Path, count: int) -> list[Asked]:
    """Up to `count` questions of each kind, evenly spread, each searched."""
    return [await squad.ask(kind, q) for kind in KINDS for q in questions_of(data, kind, count)]


def questions_of(data: Path, kind: str, count: int) -> list[Question]:
    """Up to `count` questions of a kind, evenly spread."""
    return every(read_questions(data / _FILES[KINDS.index(kind)]), count)


def read_questions(path: Path) -> list[Question]:
    """Questions of a queries.jsonl, in its order; a set without answers (SciFact's claims) has none."""
    return [
        Question(str(row["_id"]), str(row["text"]), str(row.get("paragraph", "")), _strings(row.get("answers")))
        for row in _rows(path)
    ]


def every(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, evenly spread over their order, which is that of SQuAD's articles."""
    step = max(1.0, len(items) / max(1, count))
    return [items[int(i * step)] for i in range(min(count, len(items)))]


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _rows(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
