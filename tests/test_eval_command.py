"""How an evaluation command ends that lacks what it needs: one line, exit code 2, and nothing left behind."""

import importlib
import sys
from pathlib import Path

import pytest

from eval import command

NO_DESK = "there is no desk in '.cache/desk-100k': run `python -m eval.corpus` first, or name another with --folder"
LACKS = {  # in an empty folder
    ("latency",): NO_DESK,
    ("load",): NO_DESK,
    ("profile",): NO_DESK,
    ("recall",): NO_DESK,
    ("answers",): "'../shared/data/squad' is not there: ",
    ("chunking",): "'../shared/data/chunking/corpora' is not there: ",
    ("support",): "'../shared/data/squad' is not there: ",
    ("worse",): "'../shared/data/squad/corpus.jsonl' is not there: ",
    ("compare_peers", "--dataset", "nowhere"): "'nowhere' is not there: ",
}


@pytest.mark.parametrize("arguments", LACKS)
def test_what_a_command_lacks_is_one_line_and_nothing_is_left_behind(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"eval/{arguments[0]}.py", *arguments[1:]])
    with pytest.raises(SystemExit) as ended:
        command.run(importlib.import_module(f"eval.{arguments[0]}").main)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    [line] = printed.err.splitlines()
    assert line.startswith(f"eval.{arguments[0]}: {LACKS[arguments]}")
    assert list(tmp_path.iterdir()) == []
