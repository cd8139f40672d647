"""Each compared program by its runner: what it ingested it finds, what it was handed it keeps, opens and serves."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.peer_process import Program, Where, serve
from eval.peers import PEERS, peer_python
from models.store import ModelStore
from tests.test_eval import TOPICS, write_dataset

DIMENSION = 384
QUESTIONS = [f"When is the {topic} serviced?" for topic in TOPICS]


@pytest.fixture(params=["txtai", "haystack", "llamaindex", "langchain"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    system = str(request.param)
    if not (PEERS / system / "ok").exists():
        pytest.skip(f"{system} is not installed: `python -m eval.compare_peers --systems {system}` does so (6 GB)")
    model = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path
    (tmp_path / "index").mkdir()
    return Where(system, peer_python(system), str(model), tmp_path / "index", tmp_path / "log")


def test_what_is_ingested_is_found(where: Where, tmp_path: Path) -> None:
    corpus = write_dataset(tmp_path / "topics") / "corpus.jsonl"
    corpus.write_text(corpus.read_text().strip())  # the runners read plain JSONL
    with Program(where) as program:
        assert program.ask("ingest", corpus=str(corpus))["seconds"] > 0
        found = program.ask("search", questions=QUESTIONS, top_k=3, warm=0, options={})["found"]
    assert [hits[0] for hits in found] == [f"d{i}" for i in range(len(TOPICS))]


def test_what_is_handed_over_is_kept_opened_and_served(where: Where, tmp_path: Path) -> None:
    texts = {f"c{i:03}": f"Number {i}. The {TOPICS[i % len(TOPICS)]} of hall {i} is serviced." for i in range(150)}
    vectors = np.random.default_rng(0).standard_normal((len(texts), DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    np.save(tmp_path / "vectors.npy", vectors)
    with Program(where) as program:
        program.ask("build", chunks=str(tmp_path))
    with Program(where) as program:
        program.ask("load")
        found = program.ask("search", questions=QUESTIONS, top_k=5, warm=1, options={})
    assert len(found["ms"]) == len(QUESTIONS) - 1
    assert all(len(hits) == 5 and set(hits) <= texts.keys() for hits in found["found"])
    with serve(where, QUESTIONS[0]) as service:
        assert len(service.search(QUESTIONS, 5, 1, rerank=False)) == len(QUESTIONS) - 1
        assert service.peak_mib() > 100
