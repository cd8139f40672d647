"""What is measured of a compared program, and where it is kept between runs: a JSON file each."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

Machine = dict[str, object]  # eval.evaluation.machine


@dataclass(frozen=True, slots=True)
class Searches:
    """Searches one after another. `row`: the program, and what of it was asked; `rankings` if documents were judged.

    `cpu_ms`: of all cores, a search; None over HTTP, where it is another process's.
    """

    row: str
    ms: tuple[float, ...]
    cpu_ms: float | None = None
    rankings: dict[str, list[str]] | None = None


@dataclass(frozen=True, slots=True)
class Ingested:
    """A corpus from its file to searchable, then searched in-process. MB are 10⁶ bytes, MiB 2²⁰."""

    versions: dict[str, str]
    installed_mb: float
    cuda_mb: float
    documents: int
    seconds: float
    cpu_s: float
    peak_mib: float
    searches: tuple[Searches, ...]
    measured_at: str
    commit: str | None = None  # of this code; None, as the machine: not known
    machine: Machine | None = None

    @property
    def asked(self) -> int:
        """How many questions."""
        return len(self.searches[0].ms)

    @property
    def per_second(self) -> float:
        return self.documents / self.seconds


@dataclass(frozen=True, slots=True)
class Searched:
    """Chunks with given vectors, searched in-process and over HTTP. `build_s` is 0 where they had been ingested."""

    versions: dict[str, str]
    chunks: int
    build_s: float
    start_s: float
    in_process_mib: float
    server_mib: float
    in_process: tuple[Searches, ...]
    over_http: tuple[Searches, ...]
    measured_at: str
    commit: str | None = None  # of this code; None, as the machine: not known
    machine: Machine | None = None

    @property
    def asked(self) -> int:
        """How many questions."""
        return len(self.in_process[0].ms)


@dataclass(frozen=True, slots=True)
class Figures:
    """Both parts, by program in the order of the tables; a program that was not measured is not in it."""

    ingested: dict[str, Ingested]
    searched: dict[str, Searched]


def write(measured: Ingested | Searched, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(type(measured)).dump_json(measured, indent=1))


def read_ingested(path: Path) -> Ingested | None:
    """None if it has not been measured."""
    return TypeAdapter(Ingested).validate_json(path.read_bytes()) if path.is_file() else None


def read_searched(path: Path) -> Searched | None:
    """None if it has not been measured."""
    return TypeAdapter(Searched).validate_json(path.read_bytes()) if path.is_file() else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
