"""How `python -m eval.NAME` begins and ends: what it needs is there, and what it lacks or fails of is one line.

Exit codes as of `refdesk`: 2 for what the caller got wrong, 1 for what failed.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from indexers.base import IndexerError
from models.base import ModelError
from server.base import InvalidRequestError, ServerError
from server.data_folder import CATALOG


def needs(*data: Path) -> None:
    """Raises InvalidRequestError if a file or folder of data is not there, before anything has been computed."""
    for path in data:
        if not path.exists():
            raise InvalidRequestError(
                f"{str(path)!r} is not there: run this in refdesk's source folder, beside which shared/data lies, or "
                "name other data (--help)"
            )


def needs_desk(folder: Path) -> None:
    """Raises InvalidRequestError if the folder holds no desk; to open it would leave an empty one there."""
    if not (folder / CATALOG).is_file():
        raise InvalidRequestError(
            f"there is no desk in {str(folder)!r}: run `python -m eval.corpus` first, or name another with --folder"
        )


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main`, and end the process."""
    try:
        sys.exit(main())
    except (ServerError, ModelError, IndexerError) as exc:
        print(f"eval.{Path(sys.argv[0]).stem}: {exc}", file=sys.stderr)
        sys.exit(2 if isinstance(exc, InvalidRequestError) else 1)
