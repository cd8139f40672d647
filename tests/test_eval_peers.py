"""The comparison with other programs: its data, its tables, and its protocol on refdesk with the fake embedder."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eval.peer_data import limited
from eval.peer_figures import Figures, Ingested, Searched, Searches, read_ingested, read_searched, write
from eval.peer_process import Program, Where, serve
from eval.peer_tables import ingestion_table, marked, origins_of, search_table, verdicts
from eval.peers import peer_size
from tests.test_eval import TOPICS, write_dataset

QUESTIONS = [f"q{i}" for i in range(20)]
QRELS = {question: {f"{question}-right": 1} for question in QUESTIONS}
RIGHT = {question: [f"{question}-right", "other"] for question in QUESTIONS}
WRONG = {question: ["other"] for question in QUESTIONS}


def ingested(row: str, seconds: float, ms: float, rankings: dict[str, list[str]]) -> Ingested:
    searches = (Searches(row, (ms,) * 20, ms, rankings),)
    return Ingested({"engine": "1.0"}, 600, 0, 100, seconds, seconds, 500, searches, "2026-11-23T00:00:00+00:00")


def searched(row: str, ms: float) -> Searched:
    runs = (Searches(row, (ms,) * 20, ms),)
    http = (Searches(row, (2 * ms,) * 20),)
    return Searched({"engine": "1.0"}, 5000, 1.0, 2.0, 300, 400, runs, http, "2026-11-23T00:00:00+00:00")


@pytest.fixture
def where(tmp_path: Path) -> Where:
    return Where("refdesk", Path(sys.executable), "fake", tmp_path / "data", tmp_path / "log")


def test_fewer_documents_are_the_judged_ones_and_the_questions_that_they_answer(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "topics")
    few = limited(folder, 2, tmp_path / "few")
    assert set(few.documents.values()) == {"d0", "d1"}
    assert few.questions == {f"q{i}": f"When is the {TOPICS[i]} serviced?" for i in range(2)}
    assert (
        limited(folder, None, tmp_path / "all").documents.keys()
        == limited(folder, 99, tmp_path / "99").documents.keys()
    )


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    one = ingested("peer", 10, 5, RIGHT)
    assert read_ingested(tmp_path / "one.json") is None
    write(one, tmp_path / "one.json")
    assert read_ingested(tmp_path / "one.json") == one


def test_goals_are_met_or_not_against_each_peer() -> None:
    ours, slow, fast = ingested("refdesk", 1, 1, RIGHT), ingested("slow", 4, 4, WRONG), ingested("fast", 2, 2, RIGHT)
    lines = list(verdicts(Figures({"refdesk": ours, "slow": slow}, {}), QRELS))
    assert [line.count("NOT met") for line in lines] == [0, 0, 0]
    lines = list(verdicts(Figures({"refdesk": ours, "slow": slow, "fast": fast}, {}), QRELS))
    assert [line.count("NOT met") for line in lines] == [1, 1, 0]
    assert "slow 4.0 ×, fast 2.0 ×" in lines[0]


def test_worse_rankings_are_called_worse_beyond_chance_only() -> None:
    ours, peer = ingested("refdesk", 1, 1, WRONG), ingested("peer", 9, 9, RIGHT)
    *_, quality = verdicts(Figures({"refdesk": ours, "peer": peer}, {}), QRELS)
    assert "NOT met" in quality
    assert "peer -1.000" in quality
    once = {**RIGHT, "q0": ["other"]}
    *_, quality = verdicts(Figures({"refdesk": ingested("refdesk", 1, 1, once), "peer": peer}, {}), QRELS)
    assert "NOT met" not in quality


def test_searches_are_judged_inside_and_over_http_each() -> None:
    ours, peer = searched("refdesk", 1), searched("peer", 5)
    peer = replace(peer, over_http=(Searches("peer", (2.5,) * 20),))
    inside, http = verdicts(Figures({}, {"refdesk": ours, "peer": peer}), QRELS)
    assert "peer 5.0 ×: met" in inside
    assert "peer 1.2 ×: NOT met" in http


def test_tables_have_a_row_a_program_and_as_many_cells_as_heads() -> None:
    figures = Figures(
        {"refdesk": ingested("refdesk", 1, 1, RIGHT), "peer": ingested("peer", 4, 4, WRONG)},
        {"refdesk": searched("refdesk", 1), "peer": searched("peer", 5)},
    )
    for table in (ingestion_table(figures, QRELS), search_table(figures)):
        lines = table.splitlines()
        assert len(lines) == 4
        assert len({line.count("|") for line in lines}) == 1
    assert "| peer | 600 (0) | 25.0 |" in ingestion_table(figures, QRELS)


def test_figures_say_what_they_are_of_and_refdesks_of_another_commit_are_marked(tmp_path: Path) -> None:
    old, machine = searched("peer", 5), {"cores": 2, "cpu": "Zen"}
    write(old, tmp_path / "old.json")
    known = json.loads((tmp_path / "old.json").read_text())
    del known["commit"], known["machine"]  # as it was written before
    (tmp_path / "old.json").write_text(json.dumps(known))
    assert read_searched(tmp_path / "old.json") == old
    ours = replace(searched("refdesk", 1), commit="a1", machine=machine)
    assert origins_of({"refdesk": ours}, 20) == "2026-11-23, 2 cores of Zen, commit a1, 20 questions"
    assert origins_of({"refdesk": ours, "peer": old}, 99).splitlines() == [
        "- refdesk: 2026-11-23, 2 cores of Zen, commit a1, 20 questions, not the 99 asked for",
        "- peer: 2026-11-23, machine unknown, commit unknown, 20 questions, not the 99 asked for",
    ]
    figures = Figures({"refdesk": ingested("refdesk", 1, 1, RIGHT)}, {"refdesk": ours, "peer": old})
    found, [note] = marked(figures, "a1")
    assert found.searched == figures.searched
    assert found.ingested["refdesk"].searches[0].row == "refdesk *"
    assert note == "* commit unknown; the present one is a1: `--again refdesk` measures anew"
    found, [note] = marked(replace(figures, ingested={}), "b2")
    assert "| refdesk * | 1.0 |" in search_table(found)
    assert note.startswith("* commit a1; the present one is b2")
    assert marked(Figures({}, {"refdesk": ours}), "a1") == (Figures({}, {"refdesk": ours}), [])


def test_refdesk_ingests_finds_and_serves_by_the_protocol(where: Where, tmp_path: Path) -> None:
    corpus = write_dataset(tmp_path / "topics") / "corpus.jsonl"
    with Program(where) as program:
        assert "openvino" in program.versions
        assert program.ask("ingest", corpus=str(corpus))["seconds"] > 0
        asked = [f"When is the {topic} serviced?" for topic in TOPICS]
        found = program.ask("search", questions=asked, top_k=3, warm=2, options={"rerank": False})
    assert len(found["ms"]) == len(found["found"]) == len(TOPICS) - 2
    assert found["found"][0][0] == "d2"
    assert found["peak_mib"] > 10
    with serve(where, asked[0]) as service:
        assert len(service.search(asked, 2, 1, rerank=True)) == len(TOPICS) - 1
        assert service.start_s > 0
        assert service.peak_mib() > 10


def test_a_program_that_dies_says_why(where: Where, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="No such file"), Program(where) as program:
        program.ask("ingest", corpus=str(tmp_path / "nothing.jsonl"))
    no_folder = replace(where, folder=where.log)
    with pytest.raises(SystemExit, match=r"(?s)refdesk does not serve; .*FileExistsError"), serve(no_folder, "q"):
        raise AssertionError("it serves")


def test_the_size_of_an_environment_says_what_is_of_cuda(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    for name in ("nvidia/lib.so", "torch/lib/libtorch_cuda.so", "torch/lib/libtorch_cpu.so", "torch/a.pyc"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_bytes(b"0" * 1000)
    size = peer_size(tmp_path / "bin/python")
    assert (size.installed_mb, size.cuda_mb) == (0.003, 0.002)


def test_results_are_json(tmp_path: Path) -> None:
    write(searched("peer", 5), tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["in_process"][0]["row"] == "peer"
