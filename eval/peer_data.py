"""The same data for every compared program: a smaller data set, and the chunks of a desk with their vectors."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np

from eval.corpus import CHUNK_TOKENS, CHUNKS, DESK, make
from eval.datasets import Dataset, json_rows, read_dataset
from indexers.base import Float32, View
from server.build import Desk, build
from server.settings import Settings

_PAGE = 4096


def limited(folder: Path, documents: int | None, into: Path) -> Dataset:
    """A BEIR folder with that many documents, the judged ones first, and the questions that they answer; None: all."""
    whole = read_dataset(folder)
    if documents is None or documents >= len(whole.documents):
        return whole
    judged = {id_ for grades in whole.qrels.values() for id_, grade in grades.items() if grade > 0}
    kept = set(sorted(whole.documents.values(), key=lambda id_: id_ not in judged)[:documents])
    grades = [
        f"{question}\t{id_}\t{grade}"
        for question, found in whole.qrels.items()
        for id_, grade in found.items()
        if id_ in kept
    ]
    into.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps(row) for _, row in json_rows(whole.corpus) if row["_id"] in kept]
    (into / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (into / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *grades]), encoding="utf-8")
    shutil.copy(folder / "queries.jsonl", into)
    return read_dataset(into)


def desk_of(chunks: int) -> Path:
    """The data folder that is searched, with at least so many chunks: the large corpus's, or a smaller one beside it.

    What it lacks is ingested now, which takes half an hour for the large one.
    """
    folder = DESK if chunks >= CHUNKS else DESK.with_name(f"desk-{chunks}")
    asyncio.run(make(folder, chunks))
    return folder


def export_chunks(desk: Path, into: Path) -> int:
    """Write texts.json (chunk id to text) and vectors.npy (n, dimension) float32, in one order; returns n.

    The texts are the chunks' own words: what refdesk puts before them to be embedded and indexed is left out.
    """
    texts, vectors = asyncio.run(_read(desk))
    into.mkdir(parents=True, exist_ok=True)
    np.save(into / "vectors.npy", vectors)
    (into / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    return len(texts)


async def _read(folder: Path) -> tuple[dict[str, str], Float32]:
    desk = await build(Settings(data_dir=folder, chunk_tokens=CHUNK_TOKENS), command="eval.compare_peers")
    try:
        return await _page_through(desk)
    finally:
        await desk.close()


async def _page_through(desk: Desk) -> tuple[dict[str, str], Float32]:
    state = await desk.catalog.namespace("docs", "default")
    texts: dict[str, str] = {}
    vectors: list[Float32] = []
    after: str | None = None
    while True:
        page, after = await desk.index.scan(state.namespace, View(state.commit), after, _PAGE)
        ids = [stored.point.id for stored in page]
        chunks = await desk.catalog.chunks(state.id, ids, state.commit)
        texts |= {id_: chunks[id_].text for id_ in ids}
        vectors += [stored.point.vector for stored in page]
        if after is None:
            return texts, np.stack(vectors)
