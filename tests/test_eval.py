"""Evaluation on data sets: their errors, every column, and the whole command."""

import json
from pathlib import Path

import pytest
from rich.progress import Progress

from eval.checkpoints import SPECIMENS, write_checkpoint
from eval.datasets import DatasetError, read_dataset
from eval.evaluation import ingest
from eval.metrics import METRICS
from eval.ranking import rank
from eval.record import read_run, write
from eval.run import on_dataset, table
from server.base import SearchRequest
from server.build import build
from server.cli import run_command
from server.settings import Settings

TOPICS = ("pump", "valve", "turbine", "gasket", "boiler", "flange")
FILLER = "The handbook says nothing else about it, and neither does the drawing that hangs beside the door. "


def write_dataset(folder: Path) -> Path:
    """Six documents of several chunks each, about one thing; a question about each, and one that nobody judged."""
    documents = [
        {"_id": f"d{i}", "title": f"On the {topic}", "text": FILLER * 9 + f"The {topic} is serviced in week {i}."}
        for i, topic in enumerate(TOPICS)
    ]
    questions = [{"_id": f"q{i}", "text": f"When is the {topic} serviced?"} for i, topic in enumerate(TOPICS)]
    questions.append({"_id": "unjudged", "text": "Who hung the drawing?"})
    rows = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(len(TOPICS))), "q0\td3\t0"]
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)) + "\n\n")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (folder / "qrels.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "handbook")


def test_a_data_set_is_read_with_the_questions_somebody_judged(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert dataset.name == "handbook"
    assert dataset.documents == {i + 1: f"d{i}" for i in range(6)}
    assert list(dataset.questions) == [f"q{i}" for i in range(6)]
    assert dataset.qrels["q0"] == {"d0": 1, "d3": 0}
    assert list(read_dataset(folder, limit=3).questions) == ["q0", "q2", "q4"]
    assert set(read_dataset(folder, limit=3).qrels) == {"q0", "q2", "q4"}


def test_judgements_may_lie_where_beir_puts_them(folder: Path) -> None:
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    assert len(read_dataset(folder).questions) == 6


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus.jsonl", '{"_id": "d0", "text": "again"}', r"corpus.jsonl', line 8: 'd0' is the id of line 1 too"),
        ("corpus.jsonl", '{"text": "no id"}', r"corpus.jsonl', line 8: '_id' is None"),
        ("corpus.jsonl", "{", r"corpus.jsonl', line 8: no JSON"),
        ("queries.jsonl", "\n[1]", r"queries.jsonl', line 8: a JSON object is needed, not '\[1\]'"),
        ("queries.jsonl", '\n{"_id": "q1", "text": "Another?"}', r"line 8: 'q1' is the id of an earlier question too"),
        ("queries.jsonl", '\n{"_id": "q9", "text": " "}', r"line 8: 'text' is ' ', and text is needed"),
        ("qrels.tsv", "q1\td1\t0", r"line 9: 'd1' is judged 0 for question 'q1', and 1 on an earlier line"),
        ("qrels.tsv", "q1 d1 1", r"qrels.tsv', line 9: 'q1 d1 1' is not question id, document id and a whole number"),
        ("qrels.tsv", "q1\td1\t²", r"qrels.tsv', line 9: 'q1\\td1\\t²' is not question id"),
        ("qrels.tsv", "q1\td1\t--1", r"qrels.tsv', line 9: 'q1\\td1\\t--1' is not question id"),
        ("qrels.tsv", "q1\td9\t1", r"qrels.tsv', line 9: document 'd9' is not in corpus.jsonl"),
        ("qrels.tsv", "q9\td1\t1", r"qrels.tsv', line 9: question 'q9' is not in queries.jsonl"),
    ],
)
def test_errors_name_the_file_and_the_line(folder: Path, name: str, line: str, message: str) -> None:
    with (folder / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetError, match=message):
        read_dataset(folder)


def test_a_folder_that_is_no_data_set_is_refused_with_what_one_has(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"corpus.jsonl' is not there: a data set in BEIR's layout has"):
        read_dataset(tmp_path)


async def test_every_column_finds_what_the_questions_name(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(folder)
    settings = Settings(data_dir=tmp_path / "kept", embedder="fake", chunk_tokens=40)
    first = await on_dataset(dataset, settings, Progress(disable=True))
    assert list(first.means) == ["dense", "BM25", "fused", "late-interaction", "RRF with late-interaction"]
    assert first.chunks > 3 * len(TOPICS)
    assert all(0 <= mean[name] <= 1 for mean in first.means.values() for name in METRICS)
    assert first.means["BM25"]["MRR@10"] == 1
    assert first.exact == {"recall@10": 1, "recall@100": 1}
    assert first.about["ingestion"]["embedded_documents"] == len(TOPICS)  # type: ignore[index]
    again = await on_dataset(dataset, settings, Progress(disable=True))  # what was ingested is kept
    assert again.about["ingestion"]["embedded_documents"] == 0  # type: ignore[index]
    assert again.means == first.means
    write(again, tmp_path / "run.json")
    read = read_run(tmp_path / "run.json")
    assert read == again
    assert [asked.text for asked in read.asked] == list(dataset.questions.values())
    assert read.asked[0].places["BM25"] == (1,)
    assert read.asked[0].answers == ("d0: On the pump",)
    assert read.asked[0].found[0].is_relevant == (read.asked[0].metrics["late-interaction"]["MRR@10"] == 1)
    assert str(tmp_path) not in (tmp_path / "run.json").read_text()


async def test_a_document_without_text_is_left_out_and_its_question_is_a_miss(folder: Path, tmp_path: Path) -> None:
    for name, line in (
        ("corpus.jsonl", '{"_id": "d6", "title": "On the sieve", "text": " "}\n'),
        ("queries.jsonl", '\n{"_id": "q6", "text": "When is the sieve serviced?"}'),
        ("qrels.tsv", "q6\td6\t1\n"),
    ):
        with (folder / name).open("a") as file:
            file.write(line)
    settings = Settings(data_dir=tmp_path / "kept", embedder="fake", chunk_tokens=40)
    for _ in range(2):  # the second time the corpus is there
        run = await on_dataset(read_dataset(folder), settings, Progress(disable=True))
        assert (run.documents, run.left_out) == (len(TOPICS), 1)
        assert "7 questions, 6 documents, 1 more without text, " in str(table(run).title)
        assert run.asked[-1].metrics["BM25"]["recall@100"] == 0
        assert run.means["BM25"]["MRR@10"] == pytest.approx(6 / 7)
    write(run, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == run


async def test_a_document_that_cannot_be_read_ends_the_evaluation(folder: Path, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "kept", embedder="fake", max_upload_bytes=100)
    with pytest.raises(DatasetError, match=r"1 documents could not be read, the first: .*\(too large\)"):
        await on_dataset(read_dataset(folder), settings, Progress(disable=True))


async def test_what_is_kept_in_one_precision_is_not_used_in_another(folder: Path, tmp_path: Path) -> None:
    dataset, embedded = read_dataset(folder), []
    for precision in ("int8", "f32", "int8"):
        settings = Settings(data_dir=tmp_path / "kept", precision=precision)
        run = await on_dataset(dataset, settings, Progress(disable=True))
        embedded.append(run.about["ingestion"]["embedded_documents"])  # type: ignore[index]
    assert embedded == [len(TOPICS), len(TOPICS), 0]


async def test_the_served_column_is_what_a_search_returns(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(folder)
    desk = await build(Settings(data_dir=tmp_path / "desk", embedder="fake", chunk_tokens=40))
    try:
        corpus = await ingest(desk, dataset)
        ranked = await rank(desk, dataset, corpus.states)
        namespace = corpus.states[0].namespace
        for id_, question in dataset.questions.items():
            request = SearchRequest(question, namespace.collection.name, (namespace.name,), top_k=50)
            hits = (await desk.pipeline.search(request)).hits
            assert ranked.rankings[ranked.served][id_] == dataset.items(id_, [hit.chunk for hit in hits])
            request = SearchRequest(question, namespace.collection.name, (namespace.name,), top_k=50, rerank=False)
            hits = (await desk.pipeline.search(request)).hits
            assert ranked.rankings["fused"][id_][:1] == dataset.items(id_, [hits[0].chunk])
    finally:
        await desk.close()


async def test_a_cross_encoder_gets_a_column_beside_late_interaction(folder: Path, tmp_path: Path) -> None:
    specimen = next(one for one in SPECIMENS if one.labels == 1)
    model = write_checkpoint(specimen, tmp_path / "random")
    settings = Settings(data_dir=tmp_path / "kept", embedder="fake", reranker=str(model), chunk_tokens=40)
    run = await on_dataset(read_dataset(folder), settings, Progress(disable=True))
    assert list(run.means) == ["dense", "BM25", "fused", "late-interaction", "random", "RRF with random"]
    assert run.served == "random"


async def test_a_leg_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "kept", embedder="fake", chunk_tokens=40, reranker="none")
    run = await on_dataset(read_dataset(folder), settings, Progress(disable=True), without=frozenset({"bm25"}))
    assert list(run.means) == ["dense", "fused"]
    assert run.served == "fused"
    assert run.means["fused"] == run.means["dense"]
    assert run.about["without"] == ["bm25"]


def test_the_command_prints_a_table_and_writes_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "run.json"
    fakes = ["--set", "embedder=fake", "--set", "reranker=none"]
    assert run_command([*fakes, "eval", str(folder), "--limit", "2", "--json", str(output)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "handbook: 2 questions, 6 documents, 6 chunks" in printed
    assert "a search returns: fused; dense leg against exact: recall@10 1.0000" in printed
    run = read_run(output)
    assert list(run.means) == ["dense", "BM25", "fused"]
    assert run.about["settings"]["reranker"] == "none"  # type: ignore[index]  # --set before the command counts
    assert run_command(["eval", "accept", str(output), str(tmp_path / "base.json")]) == 0
    both = [str(tmp_path / "base.json"), str(output)]
    assert run_command(["eval", "compare", *both]) == 2
    assert "2 questions cannot show a difference at α 0.01, however large: ask 8" in capsys.readouterr().err
    assert run_command(["eval", "compare", "--alpha", "0.6", *both]) == 0
    assert "not worse than the baseline" in capsys.readouterr().out
    assert run_command(["eval", "compare", "--alpha", "5", *both]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "{folder}", "--set", "chunk_size=3"], "setting chunk_size"),
        (["--set", "chunk_size=3", "eval", "{folder}"], "setting chunk_size"),
        (["eval", "{folder}", "--set", "reranker"], "--set 'reranker': give NAME=VALUE"),
        (["--data-dir", "mine", "eval", "{folder}"], "a folder of its own: --keep FOLDER keeps it"),
        (["eval", "{folder}", "-n", "other"], "are for one's own questions"),
        (["eval", "{folder}", "--json", "run.html"], "the page has that name"),
        (["eval", "nowhere"], "'nowhere' is not there: give a folder in BEIR's layout, or a .jsonl, .csv or .tsv"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_command([argument.format(folder=folder) for argument in arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("limit", ["0", "-1", "²"])
def test_no_questions_at_all_are_refused(folder: Path, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(["eval", str(folder), "--limit", limit])
    assert ended.value.code == 2
    assert f"argument --limit: {limit!r} is no number of questions: give 1 or more" in capsys.readouterr().err
