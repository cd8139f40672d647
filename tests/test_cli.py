"""The command line: on a free folder, beside a running server, beside a process that has none, and killed."""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import docx
import httpx2
import openai
import pypdfium2
import pytest

from server.cli import run_command
from server.demo import Block, blocks, make_documents, write_docx, write_pdf
from server.lock import DataFolderLock, holder_of
from server.originals_folder import UNFINISHED
from tests.desks import GUIDE, NOTES, running_server

FAKES = ("--set", "embedder=fake", "--set", "generator=fake")


class Shell:
    """A command line on one data folder, run in this process; keeps what the last command printed."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data_dir, self.capsys = data_dir, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        code = run_command(["--data-dir", str(self.data_dir), *FAKES, *arguments])
        self.out, self.err = self.capsys.readouterr()
        return code


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "data", capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "notes.md").write_text(NOTES)
    return folder


def test_from_a_folder_to_a_cited_answer(shell: Shell, folder: Path) -> None:
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7 broken")
    assert shell("ingest", str(folder)) == 0
    assert "2 added" in shell.out
    assert "bad.pdf (corrupt)" in shell.err
    assert shell("failed") == 0
    assert "bad.pdf corrupt: " in " ".join(shell.out.split())
    assert shell("search", "How often must the Kestrel pump be serviced?") == 0
    assert "guide.md" in shell.out
    assert "ms" in shell.err
    assert shell("search", "Kestrel pump", "--top-k", "1", "--no-rerank", "--json") == 0
    assert len(json.loads(shell.out)["hits"]) == 1
    assert shell("ask", "How often must the Kestrel pump be serviced?") == 0
    assert "[1] guide.md" in shell.out
    assert "«" in shell.out
    assert shell("ask", "How often must it be serviced?", "--json") == 0
    citation = json.loads(shell.out)["citations"][0]
    assert GUIDE[citation["start"] : citation["end"]] == citation["quote"]


def test_ingesting_again_costs_nothing_and_prune_removes(shell: Shell, folder: Path) -> None:
    metadata = ("--metadata", '{"year": 2024}', "--group", "staff", "-n", "tenant")
    assert shell("ingest", str(folder), *metadata) == 0
    assert shell("ingest", str(folder), *metadata) == 0
    assert "2 unchanged" in shell.out
    (folder / "notes.md").unlink()
    assert shell("ingest", str(folder), *metadata, "--prune") == 0
    assert "1 unchanged, 1 pruned" in shell.out
    assert shell("search", "harbour", "-n", "tenant", "--filter", '{"year": 2024}', "--json") == 0
    assert {hit["uri"] for hit in json.loads(shell.out)["hits"]} == {"guide.md"}
    assert shell("status", "--json") == 0
    (collection,) = json.loads(shell.out)["collections"]
    (namespace,) = collection["namespaces"]
    assert (namespace["name"], namespace["documents"]) == ("tenant", 1)
    assert shell("status") == 0
    assert "tenant" in shell.out


def test_no_part_of_a_data_folder_is_a_document(shell: Shell, folder: Path) -> None:
    """The default data folder lies where people stand when they say `ingest .`; a lock would show an admin's token."""
    above = str(folder.parent)
    for added in ("2 added", "2 unchanged"):
        assert shell("ingest", above) == 0
        assert added in shell.out
        assert shell.err.count("not read") == 0
    (folder / "lock.txt").symlink_to(shell.data_dir / "refdesk.lock")
    assert shell("ingest", above) == 0
    assert "lock.txt (unsupported)" in shell.err
    for part in ("refdesk.lock", "originals", "index"):
        assert shell("ingest", str(shell.data_dir / part)) == 2
        assert "a part of a data folder" in shell.err


def test_a_link_to_a_file_keeps_its_own_name(shell: Shell, folder: Path) -> None:
    (folder / "current.md").symlink_to(folder / "guide.md")
    assert shell("ingest", str(folder / "current.md")) == 0
    assert shell("search", "Kestrel pump", "--json") == 0
    assert {hit["uri"] for hit in json.loads(shell.out)["hits"]} == {"current.md"}


def test_a_desk_without_a_server_is_swept_when_something_is_ingested(shell: Shell, folder: Path) -> None:
    def versions() -> int:
        with closing(sqlite3.connect(shell.data_dir / "catalog.sqlite")) as catalog:
            count: int = catalog.execute("SELECT count(*) FROM versions").fetchone()[0]
            catalog.execute("UPDATE commits SET committed_at = committed_at - 8 * 86400")
            catalog.commit()
        return count

    assert shell("ingest", str(folder)) == 0
    (desk,) = [part for part in (shell.data_dir / "originals").iterdir() if part.name != UNFINISHED]
    orphan = desk / "00" / f"00{'0' * 62}-{'0' * 16}"  # of an ingestion that was killed before its commit
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"words")
    os.utime(orphan, (0, 0))
    counts = []
    for year in ("2024", "2025", "2026", "2026"):
        (folder / "guide.md").write_text(GUIDE + f"\nRevised in {year}.\n")
        assert shell("ingest", str(folder)) == 0
        counts.append(versions())
    assert not orphan.exists()
    assert counts == [3, 3, 3, 2], "each replaced version is a week old at the next ingestion"
    assert shell("search", "Revised in 2026", "--json") == 0
    assert "2026" in json.loads(shell.out)["hits"][0]["text"]


def test_keys_are_made_listed_and_revoked(shell: Shell) -> None:
    assert shell("keys", "add", "bot", "--role", "write", "--namespace", "docs:*", "--group", "hr", "--days", "1") == 0
    key = shell.out.strip()
    assert re.fullmatch(r"rd-[\w-]{43}", key)
    assert shell("keys", "list") == 0
    assert key not in shell.out
    (id_,) = re.findall(r"key_\w+", shell.out)
    assert all(part in shell.out for part in ("bot", "write", "docs:*", "hr", "expires"))
    assert shell("keys", "revoke", id_) == 0
    assert shell("keys") == 0
    assert "revoked" in shell.out
    assert shell("keys", "revoke", "key_0") == 2
    assert shell("keys", "add", "bot", "--namespace", "docs") == 2
    assert "collection:namespace" in shell.err


def test_repair_and_models(shell: Shell, folder: Path) -> None:
    assert shell("ingest", str(folder)) == 0
    assert shell("repair") == 0
    assert "nothing to repair" in shell.out
    assert shell("models") == 0
    assert "all-MiniLM-L6-v2" in shell.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nonsense",), 2, "nonsense"),
        (("ingest", "/no/such/path"), 2, "/no/such/path"),
        (("search", "x", "--filter", "{"), 2, "--filter"),
        (("search", "x", "--filter", '{"a": {"$near": 1}}'), 2, "$near"),
        (("search", "x"), 2, "'docs'"),
        (("search", "  "), 2, "empty"),
        (("ask", "x"), 2, "there is no collection 'docs': ingest into it"),
        (("ask", "x", "-c", "nx", "--json"), 2, "there is no collection 'nx': ingest into it"),
        (("--set", "reranker", "status"), 2, "--set 'reranker': give NAME=VALUE"),
        (("--set", "colour=red", "status"), 2, "colour"),
        (("--set", "port=x", "status"), 2, "port"),
        (("search", "caf\udce9"), 2, "not UTF-8"),
        (("--set", "embedder=nx", "status"), 1, "'nx'"),
        (("serve", "--host", "0.0.0.0", "--port", "99999"), 2, "port"),
        (("keys", "add"), 2, "'name'"),
        (("delete", "--yes"), 2, "exactly one of --id, --uri, --filter and --all"),
        (("delete", "--all", "--uri", "a", "--yes"), 2, "exactly one of"),
        (("delete", "--filter", "[1]", "--yes"), 2, "--filter: give a JSON object"),
        (("delete", "--uri", "a", "--yes"), 2, "'docs'"),
        (("delete", "--all", "--yes"), 2, "'docs'"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert run_command(["--data-dir", str(tmp_path), *FAKES, *arguments]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize("is_served", [False, True])
def test_deleting(shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch, is_served: bool) -> None:
    """The same beside a running server and without one."""

    def documents() -> dict[str, int]:
        assert shell("status", "--json") == 0
        spaces = [space for one in json.loads(shell.out)["collections"] for space in one["namespaces"]]
        return {space["name"]: space["documents"] for space in spaces}

    for n in range(3):
        (folder / f"{n}.md").write_text(f"# Part {n}\n\nThe zebra of part {n} sleeps.")
    with running_server(shell.data_dir) if is_served else nullcontext():
        default = {"default": 2} if is_served else {}
        for name in ("tenant", "..", "other"):
            assert shell("ingest", str(folder), "-n", name, "--metadata", '{"year": 2024}') == 0
        assert shell("delete", "--uri", "0.md", "--uri", "nx.md", "--uri", "0.md", "-n", "tenant", "--yes") == 0
        assert shell.out == "1 deleted, 1 not there\n"
        assert shell("search", "zebra", "-n", "tenant", "--json") == 0
        hits = json.loads(shell.out)["hits"]
        assert {hit["uri"] for hit in hits} >= {"1.md", "2.md"}
        assert "0.md" not in {hit["uri"] for hit in hits}
        assert shell("delete", "--id", hits[0]["document_id"], "-c", "docs", "-n", "tenant", "-y") == 0
        assert shell.out == "1 deleted\n"
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        assert shell("delete", "--filter", '{"year": 2024}', "-n", "tenant") == 130
        assert "Delete what meets" in shell.err
        assert "docs:tenant for good?" in shell.err
        assert documents() == default | {"tenant": 3, "..": 5, "other": 5}
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        assert shell("delete", "--filter", '{"year": 2024}', "-n", "tenant") == 0
        assert shell.out.strip() == "3 deleted"
        assert shell("delete", "--all", "-n", "..", "--yes") == 0
        assert shell.out == "5 deleted, and the namespace '..'\n"
        assert documents() == default | {"tenant": 0, "other": 5}
        assert shell("delete", "--all", "-n", "..", "--yes") == 2
        assert "no namespace '..'" in shell.err
        assert shell("delete", "--filter", "{}", "-n", "other", "--yes") == 2
        assert "--all" in shell.err
    assert documents() == default | {"tenant": 0, "other": 5}


def test_without_what_evaluation_needs_the_way_to_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "eval.run", None)  # an import that fails as that of a missing package
    assert run_command(["eval", "questions.csv"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "run `make .venv-dev/bin/refdesk` in refdesk's source folder, then `.venv-dev/bin/refdesk eval`" in said
    assert "%/bin/refdesk: %/ok" in Path("Makefile").read_text()


def test_the_command_works_from_any_folder_and_imports_nothing_of_it(tmp_path: Path) -> None:
    Path(tmp_path, "server.py").write_text("raise SystemExit('a document was run')")
    command = Path(sys.executable).with_name("refdesk")  # `make test` has made it
    ran = subprocess.run([command, "--data-dir", "d", "models"], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "all-MiniLM-L6-v2" in ran.stdout


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("demo", "serve", "ingest", "search", "ask", "eval", "keys"))


def test_beside_a_running_server_commands_go_through_it(shell: Shell, folder: Path) -> None:
    with running_server(shell.data_dir):
        assert shell("search", "How often must the Kestrel pump be serviced?") == 0
        assert "guide.md" in shell.out
        (folder / "third.md").write_text("# Third\n\nThe third document speaks of zebras.")
        assert shell("ingest", str(folder)) == 0
        assert "1 added, 2 unchanged" in shell.out
        assert shell("ask", "What does the third document speak of?") == 0
        assert "third.md" in shell.out
        assert shell("repair") == 0
        assert shell("keys", "add", "bot") == 0
        assert shell("status") == 0
        assert shell("search", "x", "-c", "nx") == 2
        assert "'nx'" in shell.err
        assert shell("ask", "x", "-n", "nx") == 2
        assert "collection 'docs' has no namespace 'nx': ingest into it first" in " ".join(shell.err.split())
        assert shell("serve", "--port", "0") == 1
        assert f"process {os.getpid()}" in shell.err
    assert shell("search", "zebras") == 0
    assert "third.md" in shell.out


def test_beside_a_process_without_a_server_commands_name_it(shell: Shell) -> None:
    with DataFolderLock(shell.data_dir, "a long ingestion"):
        assert shell("search", "x") == 1
    assert f"process {os.getpid()} ('a long ingestion')" in shell.err


def test_the_demo_with_the_real_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three questions about the documentation, answered out of a PDF, a DOCX and a Markdown file."""
    assert run_command(["--data-dir", str(tmp_path), "demo"]) == 0
    printed = capsys.readouterr().out
    assert "http.pdf, page 3" in printed
    assert "filters.docx · Metadata filters › What is refused" in printed
    assert re.search(r"(README|citations)\.md", printed)
    assert printed.count("«") >= 3
    assert f"--data-dir {tmp_path} serve" in printed
    assert run_command(["--data-dir", str(tmp_path), "ask", "Who won the cup in 1998?"]) == 0
    assert "[1]" not in capsys.readouterr().out


def test_the_demo_of_a_folder_of_ones_own(shell: Shell, folder: Path) -> None:
    assert shell("demo", str(folder)) == 0
    assert "What about The Kestrel pump moves 40 litres" in shell.out
    assert shell.out.count("What about ") == 3
    assert shell("demo", str(folder), "--ask", "Where is the pump stored?") == 0
    assert "2 unchanged" in shell.out


# --- serve, for real -----------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    data_dir = tmp_path / "served"
    command = [sys.executable, "-m", "server", "--data-dir", str(data_dir), *FAKES, "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, data_dir
    finally:
        process.kill()
        process.communicate()


def test_serve_prints_a_key_once_serves_and_stops(served: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    process, data_dir = served
    assert process.stdout
    key = process.stdout.readline().split()[-1]
    until = time.monotonic() + 30
    while not ((holder := holder_of(data_dir)) and holder.url):
        assert time.monotonic() < until
        time.sleep(0.05)
    with openai.OpenAI(base_url=f"{holder.url}/v1", api_key=key, max_retries=2) as client:
        files = {"file": ("guide.md", GUIDE)}
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx2.post(f"{holder.url}/v1/documents", files=files, headers=headers).status_code == 201
        answer = client.chat.completions.create(model="docs", messages=[{"role": "user", "content": "Kestrel pump?"}])
        assert answer.choices[0].message.content
    assert run_command(["--data-dir", str(data_dir), "search", "pump"]) == 0
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert key not in out + err
    assert "Kestrel" not in out + err
    assert holder_of(data_dir) is None
    files_of_lock = (data_dir / "refdesk.lock").read_bytes()
    assert files_of_lock == b""


# --- the demo's documents ------------------------------------------------------------------------------------------


def test_the_demos_documents_are_real_files(tmp_path: Path) -> None:
    made = make_documents(tmp_path)
    assert "http.pdf" in [path.name for path in made]
    pdf = pypdfium2.PdfDocument(tmp_path / "http.pdf")
    text = "\n".join(page.get_textpage().get_text_bounded() for page in pdf)
    assert len(pdf) > 1
    assert "The HTTP API" in text
    assert "offsets count Unicode code points" in re.sub(r"\s+", " ", text)
    pdf.close()


def test_a_pdf_keeps_paragraphs_and_headings_whole(tmp_path: Path) -> None:
    content = [Block("text", f"Paragraph {i}. " + "word " * 60 + f"end {i}.") for i in range(40)]
    content.insert(20, Block("heading", "A heading", 2))
    path = write_pdf(content, tmp_path / "a.pdf")
    pdf = pypdfium2.PdfDocument(path)
    pages = [page.get_textpage().get_text_bounded() for page in pdf]
    pdf.close()
    for page in pages:
        assert re.findall(r"Paragraph (\d+)", page) == re.findall(r"end (\d+)", page)
        assert not page.strip().endswith("A heading")


def test_a_docx_has_its_headings(tmp_path: Path) -> None:
    markdown = "# Title\n\nOne *two* `three`.\n\n- item → α\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n"
    document = docx.Document(str(write_docx(list(blocks(markdown)), tmp_path / "a.docx")))
    assert [(p.text, p.style.name if p.style else "") for p in document.paragraphs] == [
        ("Title", "Heading 1"),
        ("One two three.", "Normal"),
        ("item → α", "Normal"),
        ("a | b", "Normal"),
        ("1 | 2", "Normal"),
        ("code", "Normal"),
    ]
