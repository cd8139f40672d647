"""What every evaluation of retrieval is made of: questions, what answers each, and how a ranking of chunks is read.

Two kinds exist: a data set in BEIR's layout (datasets.py), and questions of one's own about one's own corpus
(questions.py).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import orjson

from eval.metrics import Qrels
from server.base import StoredChunk


class Judged(Protocol):
    """Questions with judgements. `items` are what is judged: a document, a page, a phrase."""

    @property
    def name(self) -> str: ...

    @property
    def questions(self) -> Mapping[str, str]:
        """Question id → its words, in their order."""
        ...

    @property
    def qrels(self) -> Qrels: ...

    def items(self, question: str, chunks: Sequence[StoredChunk]) -> list[str]:
        """What a ranking of chunks stands for under this question's id: each item once, where its best chunk stands."""
        ...

    def label(self, item: str) -> str:
        """An item for people to read."""
        ...


def fingerprint(judged: Judged) -> str:
    """sha256 over questions and judgements: two runs may be compared only if theirs is the same."""
    content = [judged.questions, {id_: dict(grades) for id_, grades in judged.qrels.items()}]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
