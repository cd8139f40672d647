"""A run as it is written down: scores by column and question, with all that shaped them. JSON enters and leaves.

A baseline is what `compare` needs of a run, small enough to commit: nDCG@10 of each question in each column.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from eval.metrics import JUDGED
from server.base import InvalidRequestError

T = TypeVar("T")

_DECIMALS = 4  # of a baseline's values: two runs that differ by less tie


@dataclass(frozen=True, slots=True)
class Found:
    """A hit of the served column, for people: what it stands for, where it is from, how its words begin."""

    item: str
    source: str
    words: str
    is_relevant: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what answers it and, by column: its metrics, and the places of what answers it (from 1).

    `found` is there for the questions answered worst.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, float]]
    places: Mapping[str, tuple[int, ...]]
    found: tuple[Found, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation. `fingerprint`: of questions and judgements; `served`: the column that a search returns.

    `exact`: the dense leg's recall against an exact search, by depth; `about`: models, settings, commit, machine;
    `left_out`: documents of the data set without text, which no search can find.
    """

    kind: Literal["run"]
    name: str
    fingerprint: str
    served: str
    means: Mapping[str, Mapping[str, float]]
    exact: Mapping[str, float]
    documents: int
    chunks: int
    asked: tuple[Asked, ...]
    about: Mapping[str, object]
    left_out: int = 0

    @property
    def counts(self) -> str:
        """What was asked of what, for people."""
        without_text = f", {self.left_out:,} more without text" if self.left_out else ""
        documents = f"{self.documents:,} documents{without_text}"
        return f"{len(self.asked):,} questions, {documents}, {self.chunks:,} chunks"


@dataclass(frozen=True, slots=True)
class Baseline:
    """`values` by column, in the order of `questions`."""

    kind: Literal["baseline"]
    name: str
    fingerprint: str
    served: str
    metric: str
    questions: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    about: Mapping[str, object]


def as_baseline(run: Run) -> Baseline:
    """A run cut down to what it is compared by."""
    values = {
        column: tuple(round(asked.metrics[column][JUDGED], _DECIMALS) for asked in run.asked) for column in run.means
    }
    kept = {name: run.about[name] for name in ("commit", "measured_at", "machine", "models") if name in run.about}
    questions = tuple(asked.id for asked in run.asked)
    return Baseline("baseline", run.name, run.fingerprint, run.served, JUDGED, questions, values, kept)


def write(record: Run | Baseline, path: Path) -> None:
    """Write it as JSON, a baseline in one line a field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(record, Run):
        path.write_bytes(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        return
    fields = orjson.loads(orjson.dumps(record))
    lines = [b"%s: %s" % (orjson.dumps(name), orjson.dumps(value)) for name, value in fields.items()]
    path.write_bytes(b"{\n" + b",\n".join(lines) + b"\n}\n")


def read_run(path: Path) -> Run:
    """Raises InvalidRequestError for a file that is none."""
    return _read(path, TypeAdapter(Run), "run")


def read_baseline(path: Path) -> Baseline:
    """A baseline, or a run as one. Raises InvalidRequestError for a file that is neither."""
    read = _read(path, TypeAdapter[Run | Baseline](Run | Baseline), "run or baseline")
    return as_baseline(read) if isinstance(read, Run) else read


def _read(path: Path, adapter: TypeAdapter[T], kind: str) -> T:
    try:
        return adapter.validate_json(path.read_bytes())
    except OSError as exc:
        raise InvalidRequestError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(
            f"{str(path)!r} is no {kind} of refdesk eval ({where}: {first['msg']}): write one with `refdesk eval DATA`"
        ) from exc
