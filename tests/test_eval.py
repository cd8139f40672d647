"""Evaluation: metrics against values worked out by hand, data sets with their errors, and the whole command."""

import json
import math
from pathlib import Path

import orjson
import pytest
from rich.progress import Progress

from eval.datasets import DatasetError, read_dataset
from eval.metrics import METRICS, measure
from eval.retrieval import ingest, rank
from eval.run import evaluate, main, report
from server.base import InvalidRequestError, SearchRequest
from server.build import build
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


def test_metrics_worked_out_by_hand() -> None:
    qrels = {"a": {"x": 2, "y": 1}, "b": {"z": 1}, "c": {"x": 1}}
    rankings = {"a": ["y", "o", "x"], "b": [f"o{i}" for i in range(10)] + ["z"]}  # c has no results
    scores = measure(qrels, rankings)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    ndcg_a = (1 / math.log2(2) + 2 / math.log2(4)) / ideal
    assert scores.per_question == pytest.approx({"a": ndcg_a, "b": 0, "c": 0})
    assert scores.mean == pytest.approx(
        {
            "nDCG@10": ndcg_a / 3,
            "recall@10": 1 / 3,
            "recall@100": 2 / 3,
            "precision@5": 2 / 5 / 3,
            "MRR@10": 1 / 3,  # z at place 11 is a miss
        }
    )


def test_nobody_found_anything() -> None:
    assert measure({"a": {"x": 1}}, {}).mean == dict.fromkeys(METRICS, 0)
    assert measure({"a": {"x": 1}}, {"a": []}).mean == dict.fromkeys(METRICS, 0)


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
        ("qrels.tsv", "q1 d1 1", r"qrels.tsv', line 9: 'q1 d1 1' is not question id, document id and a whole number"),
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
    first = await evaluate(dataset, settings, Progress(disable=True))
    assert list(first.columns) == ["dense", "BM25", "fused", "late-interaction", "RRF with late-interaction"]
    assert first.chunks > 3 * len(TOPICS)
    assert all(0 <= scores.mean[name] <= 1 for scores in first.columns.values() for name in METRICS)
    assert first.columns["BM25"].mean["MRR@10"] == 1
    assert first.receipt.tally.added == len(TOPICS)
    again = await evaluate(dataset, settings, Progress(disable=True))  # what was ingested is kept
    assert again.receipt.tally.added == 0
    assert {c: s.mean for c, s in again.columns.items()} == {c: s.mean for c, s in first.columns.items()}
    written = orjson.loads(orjson.dumps(report(again)))
    assert written["scores"]["BM25"]["nDCG@10"] == 1
    assert set(written["ndcg_at_10_per_question"]["dense"]) == set(dataset.questions)
    assert str(tmp_path) not in json.dumps(written)


async def test_the_last_column_is_what_a_search_returns(folder: Path, tmp_path: Path) -> None:
    dataset = read_dataset(folder)
    settings = Settings(data_dir=tmp_path / "desk", embedder="fake", chunk_tokens=40)
    desk = await build(settings)
    try:
        _, state = await ingest(desk, dataset, lambda _: None)
        rankings = await rank(desk, dataset, state)
        for id_, question in dataset.questions.items():
            request = SearchRequest(question, state.namespace.collection.name, (state.namespace.name,), top_k=50)
            hits = (await desk.pipeline.search(request)).hits
            lines = [int(hit.chunk.uri.rpartition("#")[2]) for hit in hits]
            found = list(dict.fromkeys(dataset.documents[line] for line in lines))
            assert rankings["late-interaction"][id_] == found
    finally:
        await desk.close()


def test_the_command_prints_a_table_and_writes_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "scores.json"
    main([str(folder), "--limit", "2", "--json", str(output), "--set", "embedder=fake", "--set", "reranker=none"])
    printed = capsys.readouterr().out
    assert "handbook: 2 questions, 6 documents, 6 chunks" in " ".join(printed.split())
    assert "nDCG@10" in printed
    written = json.loads(output.read_bytes())
    assert list(written["scores"]) == ["dense", "BM25", "fused"]
    assert written["settings"]["reranker"] == "none"
    assert written["machine"]["cores"] >= 1


def test_a_setting_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="setting chunk_size"):
        main([str(folder), "--set", "chunk_size=3"])
