"""What a reader gets and gives: the bytes of a source within limits, and text with its marks."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from indexers.base import Mark, Metadata, UnreadableError
from indexers.canonical import TextBuilder, TooLongError

_SHOWN_FAILURES = 20  # in a report


@dataclass(frozen=True, slots=True)
class Limits:
    """What one source may cost. The defaults are far above real documents and far below this machine's memory."""

    max_bytes: int
    max_chars: int = 100_000_000  # of canonical text
    max_expanded_bytes: int = 512 * 2**20  # all members of an Office package
    max_part_bytes: int = 64 * 2**20  # a member that is parsed into a tree (some ten times its size in memory)
    max_ratio: int = 300  # expanded to packed, beyond the first 16 MiB
    max_cells: int = 3_000_000  # of a workbook or a CSV file
    max_pages: int = 20_000
    max_lines: int = 2_000_000  # printed ones, of all pages (some 700 bytes each)
    max_depth: int = 2_000  # of nested HTML elements: the parser's time grows with the square


@dataclass(frozen=True, slots=True)
class Raw:
    """A source as a reader gets it. `charset` is what its transport declared, if anything."""

    data: bytes
    uri: str
    limits: Limits
    charset: str | None = None

    def refuse(self, reason: str, detail: str) -> UnreadableError:
        return UnreadableError(self.uri, reason, detail)

    def builder(self) -> TextBuilder:
        return TextBuilder(self.limits.max_chars)


@dataclass(frozen=True, slots=True)
class Extract:
    """One document's text. `titles` are what it may be called, the best first; those that say nothing are passed by.

    `fragment` ("#7") and `part` (the document's own bytes) only where a source holds several documents.
    """

    text: str
    marks: tuple[Mark, ...] = ()
    titles: tuple[str | None, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    fragment: str = ""
    part: bytes | None = None


Extracts = Iterator[Extract | UnreadableError]  # a reader yields what it read and reports what it could not


def one_report(raw: Raw, failures: Sequence[UnreadableError]) -> UnreadableError:
    """One report of everything that failed: a source has one failure in the catalog. The reason is the first's."""
    if len(failures) == 1:
        return failures[0]
    shown = "; ".join(f"{failure.detail} ({failure.reason})" for failure in failures[:_SHOWN_FAILURES])
    more = "; …" if len(failures) > _SHOWN_FAILURES else ""
    return raw.refuse(failures[0].reason, f"{len(failures)} of its parts: {shown}{more}")


@contextmanager
def map_errors(raw: Raw, *errors: type[Exception]) -> Iterator[None]:
    """Turn whatever a parser throws at a broken file into UnreadableError.

    `errors` are a library's own classes; those below are what Python itself raises out of parsers fed with damage.
    """
    known: tuple[type[Exception], ...] = (*errors, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
    known += (EOFError, OSError, zlib.error, NotImplementedError, AssertionError)
    try:
        yield
    except UnreadableError:
        raise
    except TooLongError as exc:
        raise raw.refuse("too large", f"{exc}; split it") from exc
    except RecursionError as exc:
        raise raw.refuse("corrupt", "it is nested too deeply") from exc
    except MemoryError as exc:
        raise raw.refuse("too large", "it does not fit into memory; split it") from exc
    except known as exc:
        raise raw.refuse("corrupt", f"{type(exc).__name__}: {exc}"[:300]) from exc
