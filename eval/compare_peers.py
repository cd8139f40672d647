"""refdesk beside txtai, Haystack, LlamaIndex and LangChain: same machine, weights, corpus and questions, one run.

`python -m eval.compare_peers` ingests SciFact into each and asks its questions, then searches the chunks of
.cache/desk-100k (`python -m eval.corpus` makes them) in-process and over HTTP. What is measured stays in
.cache/peers/results with its date, commit and machine: a run that was stopped goes on where it was, `--again NAME`
measures one anew.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from eval import command
from eval.corpus import CHUNKS
from eval.datasets import Dataset
from eval.evaluation import commit_of_this_code, machine
from eval.latency import QUERIES, questions
from eval.peer_data import desk_of, export_chunks, limited
from eval.peer_figures import (
    Figures,
    Ingested,
    Searched,
    Searches,
    now,
    read_ingested,
    read_searched,
    write,
)
from eval.peer_process import Program, Where, serve
from eval.peer_tables import OURS, ingestion_table, marked, origins_of, search_table, verdicts, versions_of
from eval.peers import PEERS, ROOT, peer_python, peer_size
from models.store import ModelStore

SYSTEMS = (OURS, "txtai", "haystack", "llamaindex", "llamaindex256", "langchain")
_CUT_OTHERWISE = {"llamaindex256"}  # the documents; chunks are searched as by the other of its name
MODEL = "all-MiniLM-L6-v2"
RESULTS = PEERS / "results"
HITS_JUDGED = 20  # chunks: of ten, several may be of one document, and nDCG@10 wants ten documents
HITS = 10
WARM = 10
ROWS = {OURS: {"refdesk, fused": {"rerank": False}, "refdesk, late interaction": {"rerank": True}}}


def measure_ingestion(system: str, dataset: Dataset) -> Ingested:
    """The corpus into a fresh folder by the program's own means, then every question, in one process."""
    ids, words = list(dataset.questions), list(dataset.questions.values())
    warm = questions(WARM)
    with (
        tempfile.TemporaryDirectory(prefix="refdesk-peer-") as folder,
        Program(_where(system, Path(folder))) as program,
    ):
        ingested = program.ask("ingest", corpus=str(dataset.corpus.resolve()))
        searches = []
        for row, options in _rows(system).items():
            found = program.ask("search", questions=warm + words, top_k=HITS_JUDGED, warm=len(warm), options=options)
            rankings = {id_: list(dict.fromkeys(hits)) for id_, hits in zip(ids, found["found"], strict=True)}
            searches.append(Searches(row, tuple(found["ms"]), found["cpu_s"] / len(ids) * 1e3, rankings))
    size = peer_size(peer_python(system))
    return Ingested(
        versions=dict(program.versions),
        installed_mb=size.installed_mb,
        cuda_mb=size.cuda_mb,
        documents=len(dataset.documents),
        seconds=ingested["seconds"],
        cpu_s=ingested["cpu_s"],
        peak_mib=found["peak_mib"],
        searches=tuple(searches),
        measured_at=now(),
        commit=commit_of_this_code(),
        machine=machine(),
    )


def measure_search(system: str, desk: Path, asked: Sequence[str]) -> Searched:
    """An index of the desk's chunks, searched in a process that opened it, then over HTTP."""
    folder = desk if system == OURS else PEERS / "indexes" / f"{system}-{desk.name}"
    chunks = PEERS / "chunks" / desk.name
    count = len(json.loads((chunks / "texts.json").read_text(encoding="utf-8")))
    where = _where(system, folder)
    build_s = 0.0
    if system != OURS:
        folder.mkdir(parents=True, exist_ok=True)
        with Program(where) as program:
            build_s = program.ask("build", chunks=str(chunks))["seconds"]
    inside, over_http = [], []
    with Program(where) as program:
        program.ask("load")
        for row, options in _rows(system).items():
            found = program.ask("search", questions=asked, top_k=HITS, warm=WARM, options=options)
            inside.append(Searches(row, tuple(found["ms"]), found["cpu_s"] / len(found["ms"]) * 1e3))
    with serve(where, asked[0]) as service:
        for row, options in _rows(system).items():
            ms = service.search(asked, HITS, WARM, rerank=options.get("rerank", False))
            over_http.append(Searches(row, tuple(ms)))
        return Searched(
            versions=dict(program.versions),
            chunks=count,
            build_s=build_s,
            start_s=service.start_s,
            in_process_mib=found["peak_mib"],
            server_mib=service.peak_mib(),
            in_process=tuple(inside),
            over_http=tuple(over_http),
            measured_at=now(),
            commit=commit_of_this_code(),
            machine=machine(),
        )


def _rows(system: str) -> dict[str, dict[str, bool]]:
    """Ways of searching a program, by the name of their row."""
    return ROWS.get(system, {system: {}})


def _where(system: str, folder: Path) -> Where:
    model = MODEL if system == OURS else str(ModelStore(None).resolve(MODEL, "embedder").path)
    log = PEERS / "logs" / f"{system}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return Where(system, peer_python(system), model, folder.resolve(), log)


def ingestions(arguments: argparse.Namespace, dataset: Dataset) -> dict[str, Ingested]:
    """By program: what was measured before, and what is measured now."""
    measured = {}
    for system in arguments.systems:
        path = RESULTS / f"ingest-{dataset.name}-{len(dataset.documents)}-{dataset.digest()}-{system}.json"
        known = None if system in arguments.again else read_ingested(path)
        if known is None:
            print(f"{system}: ingesting {len(dataset.documents)} documents of {dataset.name}", file=sys.stderr)
            write(known := measure_ingestion(system, dataset), path)
        measured[system] = known
    return measured


def searches(arguments: argparse.Namespace) -> dict[str, Searched]:
    """By program: what was measured before, and what is measured now."""
    measured = {}
    asked = questions(WARM + arguments.questions)
    for system in (name for name in arguments.systems if name not in _CUT_OTHERWISE):
        path = RESULTS / f"search-{arguments.chunks}-{system}.json"
        known = None if system in arguments.again else read_searched(path)
        if known is None:
            desk = desk_of(arguments.chunks)
            if not (PEERS / "chunks" / desk.name / "vectors.npy").exists():
                export_chunks(desk, PEERS / "chunks" / desk.name)
            print(f"{system}: searching {arguments.chunks} chunks", file=sys.stderr)
            write(known := measure_search(system, desk, asked), path)
        measured[system] = known
    return measured


def main() -> None:
    """Measure what has not been measured, print the tables and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=ROOT.parent / "shared/data/scifact", help="in BEIR's layout")
    parser.add_argument("--documents", type=int, help="of the data set, the judged ones first; default: all")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="fewer than the default are ingested first")
    parser.add_argument("--questions", type=int, default=200, help="asked of the chunks")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, choices=SYSTEMS, metavar="NAME")
    parser.add_argument("--again", nargs="+", default=(), choices=SYSTEMS, metavar="NAME", help="measure anew")
    parser.add_argument("--only", choices=("ingestion", "search"))
    arguments = parser.parse_args()
    command.needs(arguments.dataset, QUERIES)
    dataset = limited(arguments.dataset, arguments.documents, PEERS / f"{arguments.dataset.name}-{arguments.documents}")
    figures = Figures(
        ingestions(arguments, dataset) if arguments.only != "search" else {},
        searches(arguments) if arguments.only != "ingestion" else {},
    )
    print("\n\n".join(report(figures, dataset, arguments.questions)))


def report(figures: Figures, dataset: Dataset, asked: int) -> list[str]:
    """Tables with what they are of, verdicts and versions, as Markdown. `asked`: questions wanted of the chunks."""
    figures, notes = marked(figures, commit_of_this_code())
    parts = []
    if OURS in figures.ingested:
        parts += [f"{dataset.name}, {len(dataset.documents)} documents", ingestion_table(figures, dataset.qrels)]
        parts.append(origins_of(figures.ingested, len(dataset.questions)))
    if figures.searched:
        parts += [f"{next(iter(figures.searched.values())).chunks} chunks", search_table(figures)]
        parts.append(origins_of(figures.searched, asked))
    return [*parts, *notes, *verdicts(figures, dataset.qrels), versions_of(figures.ingested or figures.searched)]


if __name__ == "__main__":
    command.run(main)
