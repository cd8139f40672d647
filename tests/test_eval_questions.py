"""Questions of one's own about one's own corpus: files, checks, and how documents, pages and phrases are judged."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eval.datasets import DatasetError
from eval.evaluation import Corpus, evaluate
from eval.questions import Answer, JudgedCorpus, check, read_questions
from eval.record import read_run
from indexers.base import View
from indexers.sources import Source
from server.base import NamespaceState, StoredChunk
from server.build import Desk
from server.cli import run_command
from server.ingest import Target
from tests.desks import GUIDE, NOTES, open_desk
from tests.make_files import pdf

PAGES = [[(f"Chapter {n}", [f"The {thing} is painted {colour}."])] for n, thing, colour in (
    (1, "boiler", "green"), (2, "turbine", "red"), (3, "gasket", "blue"),
)]  # fmt: skip


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path / "data", chunk_tokens=40) as desk:
        files = {"guide.md": GUIDE.encode(), "notes.md": NOTES.encode(), "paint.pdf": pdf("Paint", PAGES)}
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        await desk.pipeline.ingest([Source(name, tmp_path / name) for name in files], Target("docs"))
        yield desk


async def states(desk: Desk) -> list[NamespaceState]:
    return [await desk.catalog.namespace("docs", "default")]


async def judged(desk: Desk, path: Path) -> JudgedCorpus:
    return await check(read_questions(path), desk.catalog, await states(desk))


async def other_edition(desk: Desk, folder: Path) -> list[NamespaceState]:
    """Both namespaces: the desk's own, and one whose documents of the same uris say other things."""
    files = {"notes.md": b"The canteen opens at noon.", "paint.pdf": pdf("Paint", PAGES[:1])}
    (folder / "other").mkdir()
    for name, content in files.items():
        (folder / "other" / name).write_bytes(content)
    await desk.pipeline.ingest([Source(name, folder / "other" / name) for name in files], Target("docs", "other"))
    return [*await states(desk), await desk.catalog.namespace("docs", "other")]


def rows(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_jsonl_and_csv_say_the_same(tmp_path: Path) -> None:
    jsonl = rows(
        tmp_path / "asked.jsonl",
        {"question": "Who, then?", "document": "a.md"},
        {"question": "When?", "document": "b.pdf", "page": 3},
        {"question": "When?", "phrase": "at noon"},
    )
    csv = tmp_path / "asked.csv"
    csv.write_text('question,document,page,phrase\n"Who, then?",a.md,,\nWhen?,b.pdf,3,\nWhen?,,,at noon\n')
    semicolons = tmp_path / "excel.csv"
    semicolons.write_text("﻿question;document;page;phrase\r\nWho, then?;a.md;;\r\nWhen?;b.pdf;3;\r\nWhen?;;;at noon\r\n")
    read = read_questions(jsonl)
    assert read.questions == {"Who, then?": "Who, then?", "When?": "When?"}
    assert read.answers["When?"] == [Answer("b.pdf", 3, None), Answer(None, None, "at noon")]
    tabs = tmp_path / "asked.tsv"
    tabs.write_text("question\tdocument\tpage\tphrase\nWho, then?\ta.md\t\t\nWhen?\tb.pdf\t3\t\nWhen?\t\t\tat noon\n")
    for path in (csv, semicolons, tabs):
        assert read_questions(path).answers == read.answers
    assert list(read_questions(jsonl, limit=1).questions) == ["Who, then?"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"document": "a.md"}, "line 1: 'question' is None, and text is needed"),
        ({"question": "Who?"}, "line 1: has none of 'document', 'phrase' and 'page'"),
        ({"question": "Who?", "document": "a.md", "page": 0}, "line 1: page 0 is no page number"),
        ({"question": "Who?", "document": "a.md", "page": "²"}, "line 1: page '²' is no page number"),
        ({"question": "Who?", "page": 2}, "line 1: page 2 of which document"),
    ],
)
def test_a_row_that_says_too_little_is_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_questions(rows(tmp_path / "asked.jsonl", row))


def test_a_row_of_more_fields_than_the_header_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "asked.csv"
    path.write_text("question,document\nWho?,a.md\nWho, then?,a.md\n")
    with pytest.raises(DatasetError, match=r"line 3: has more fields than the header: put a text that holds ','"):
        read_questions(path)


def test_one_id_has_one_question(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "asked.jsonl",
        {"id": "1", "question": "Who?", "document": "a.md"},
        {"id": "1", "question": "When?", "document": "a.md"},
    )
    with pytest.raises(DatasetError, match="line 2: '1' is the id of another question too, 'Who\\?'"):
        read_questions(path)


async def test_documents_pages_and_phrases_are_found_where_they_stand(desk: Desk, tmp_path: Path) -> None:
    path = rows(
        tmp_path / "asked.jsonl",
        {"id": "document", "question": "Which channel do ships call on?", "document": "notes.md"},
        {"id": "page", "question": "How is the turbine painted?", "document": "paint.pdf", "page": 2},
        {"id": "phrase", "question": "How long may a drained pump be stored?", "phrase": "for  TWO years"},
    )
    run = await evaluate(desk, await judged(desk, path), Corpus(tuple(await states(desk))))
    assert {asked.id: asked.places["BM25"] for asked in run.asked} == {"document": (1,), "page": (1,), "phrase": (1,)}
    assert [asked.answers for asked in run.asked] == [
        ("notes.md",), ("paint.pdf, page 2",), ("“for  TWO years”",),
    ]  # fmt: skip
    assert run.means["BM25"]["nDCG@10"] == 1
    assert run.exact["recall@100"] == 1


async def test_an_answer_is_found_in_any_of_several_namespaces_that_has_it(desk: Desk, tmp_path: Path) -> None:
    path = rows(
        tmp_path / "asked.jsonl",
        {"id": "page", "question": "How is the turbine painted?", "document": "paint.pdf", "page": 2},
        {"id": "phrase", "question": "Which channel?", "document": "notes.md", "phrase": "channel twelve"},
        {"id": "other", "question": "When does the canteen open?", "document": "notes.md", "phrase": "at noon"},
        {"id": "anywhere", "question": "Which channel do ships call on?", "phrase": "channel twelve"},
    )
    namespaces = await other_edition(desk, tmp_path)
    for asked in (namespaces, namespaces[::-1]):
        corpus = await check(read_questions(path), desk.catalog, asked)
        run = await evaluate(desk, corpus, Corpus(tuple(asked)))
        assert all(len(one.places["fused"]) == 1 for one in run.asked)
    missing = rows(tmp_path / "missing.jsonl", {"question": "a", "document": "paint.pdf", "page": 4})
    with pytest.raises(DatasetError, match=r"not in docs:default, docs:other: page 4 of 'paint\.pdf'"):
        await check(read_questions(missing), desk.catalog, namespaces)


async def test_documents_of_one_uri_in_two_namespaces_are_two(desk: Desk, tmp_path: Path) -> None:
    path = rows(tmp_path / "asked.jsonl", {"id": "guide", "question": "Which paint?", "document": "guide.md"})
    namespaces = await other_edition(desk, tmp_path)
    corpus = await check(read_questions(path), desk.catalog, namespaces)
    chunks = [chunk for state in namespaces for chunk in await _chunks(desk, state) if chunk.uri == "paint.pdf"]
    items = corpus.items("guide", chunks)
    assert len(items) == 2
    assert [corpus.label(item) for item in items] == ["paint.pdf", "paint.pdf"]


async def test_a_document_counts_once_and_a_missed_place_keeps_its_chunks_apart(desk: Desk, tmp_path: Path) -> None:
    path = rows(
        tmp_path / "asked.jsonl",
        {"id": "document", "question": "pump", "document": "notes.md"},
        {"id": "phrase", "question": "pump", "phrase": "channel twelve"},
    )
    corpus, chunks = await judged(desk, path), await _chunks(desk, (await states(desk))[0])
    items, uris = corpus.items("document", chunks), {chunk.uri for chunk in chunks}
    assert len(chunks) > len(uris)
    assert sorted(map(corpus.label, items)) == sorted(uris)
    assert "notes.md" in items
    assert len(corpus.items("phrase", chunks)) == len(chunks)
    assert "“channel twelve”" in corpus.items("phrase", chunks)


async def _chunks(desk: Desk, state: NamespaceState) -> list[StoredChunk]:
    page, _ = await desk.index.scan(state.namespace, View(state.commit), None, 1000)
    ids = [stored.point.id for stored in page]
    return list((await desk.catalog.chunks(state.id, ids, state.commit)).values())


async def test_what_is_nowhere_in_the_corpus_is_named(desk: Desk, tmp_path: Path) -> None:
    path = rows(
        tmp_path / "asked.jsonl",
        {"question": "a", "document": "note.md"},
        {"question": "b", "document": "paint.pdf", "page": 4},
        {"question": "c", "document": "guide.md", "phrase": "channel twelve"},
        {"question": "d", "phrase": "cast bronze"},
    )
    with pytest.raises(DatasetError) as caught:
        await judged(desk, path)
    message = str(caught.value)
    for part in (
        "not in docs:default: ",
        "document 'note.md' (is it 'notes.md'?)",
        "page 4 of 'paint.pdf'",
        "'channel twelve' in 'guide.md'",
        "'cast bronze'",
    ):
        assert part in message


async def test_an_answer_that_no_chunk_can_meet_says_what_keeps_it_from_it(desk: Desk, tmp_path: Path) -> None:
    """All of it stands in the document, but a search is judged by its chunks."""
    walls = " ".join(f"Wall {n} is white." for n in range(30))
    pages = [[("One", [walls, "The door is green."])], [], [("Three", [walls, "The roof is red."])]]
    (tmp_path / "house.pdf").write_bytes(pdf("House", pages))
    await desk.pipeline.ingest([Source("house.pdf", tmp_path / "house.pdf")], Target("docs"))
    met = rows(tmp_path / "met.jsonl", {"question": "a", "document": "house.pdf", "page": 3, "phrase": "roof is red"})
    await judged(desk, met)
    path = rows(
        tmp_path / "asked.jsonl",
        {"question": "a", "document": "house.pdf", "page": 1, "phrase": "roof is red"},
        {"question": "b", "document": "house.pdf", "phrase": walls},
        {"question": "c", "phrase": walls},
        {"question": "d", "document": "house.pdf", "page": 2},  # has no text
    )
    with pytest.raises(DatasetError) as caught:
        await judged(desk, path)
    for part in (
        "'roof is red' on page 1 of 'house.pdf' (it stands on another page)",
        f"{walls!r} in 'house.pdf' within one chunk (it stands across several: give fewer of its words)",
        f"{walls!r} within one chunk",
        ", page 2 of 'house.pdf'",
    ):
        assert part in str(caught.value)


def test_the_command_asks_what_the_data_folder_serves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "guide.md").write_text(GUIDE)
    (files / "notes.md").write_text(NOTES)
    desk = ["--data-dir", str(tmp_path / "data"), "--set", "embedder=fake", "--set", "generator=fake"]
    assert run_command([*desk, "ingest", str(files), "-n", "harbour"]) == 0
    asked = rows(tmp_path / "mine.jsonl", {"question": "When does the harbour office open?", "document": "notes.md"})
    output = tmp_path / "run.json"
    assert run_command([*desk, "eval", str(asked), "-n", "harbour", "--json", str(output)]) == 0
    assert "mine: 1 questions, 2 documents" in " ".join(capsys.readouterr().out.split())
    assert read_run(output).means["fused"]["MRR@10"] == 1
    assert run_command([*desk, "eval", str(asked), "-n", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
