"""`python -m eval.worse DATASET`: does `refdesk eval compare` fail what is worse, and pass what is not?

A pipeline without its BM25 leg, one whose passages are truncated and one with the wrong pooling must fail against the
one that is as it should be, in f32; one that computes in bf16 or int8 must not. Exit code 1 if it is otherwise. Data
and runs are kept for the commit and the data set they are of.
"""

import argparse
import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from eval import command
from eval.bf16 import Bf16Embedder
from eval.compare import Comparison, compare
from eval.datasets import Dataset, read_dataset
from eval.evaluation import commit_of_this_code, evaluate, ingest, kept
from eval.record import Baseline, Run, read_baseline, write
from eval.run import settings_for
from models.base import (
    Embedder,
    EmbedderInfo,
    Passage,
    PassageEmbedding,
    QueryEmbedding,
    Tokenizer,
    UnsupportedModelError,
)
from models.openvino import OpenVinoEmbedder
from models.store import ModelStore
from server.build import Desk, build
from server.pipeline import Pipeline
from server.settings import Settings

KEPT_TOKENS = 64  # a quarter of what MiniLM takes


class TruncatingEmbedder:
    """Implements Embedder: another one that reads only the first tokens of a passage, and does not say so."""

    def __init__(self, embedder: Embedder, kept: int = KEPT_TOKENS) -> None:
        self._embedder, self._kept = embedder, kept

    @property
    def info(self) -> EmbedderInfo:
        return self._embedder.info

    @property
    def tokenizer(self) -> Tokenizer:
        return self._embedder.tokenizer

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        """Embed the beginnings."""
        encoded = self.tokenizer.encode_batch([passage.text for passage in passages])
        cut = [Passage(p.text, t.ids[: self._kept]) for p, t in zip(passages, encoded, strict=True)]
        return await self._embedder.embed_passages(cut, urgent=urgent)

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        return await self._embedder.embed_queries(texts)

    async def close(self) -> None:
        await self._embedder.close()


@dataclass(frozen=True, slots=True)
class Variant:
    """A pipeline that differs in one thing from BASELINE. `folder` names its data; `embedder` makes its embedder from
    the desk's."""

    name: str
    must_fail: bool
    folder: str
    embedder: Callable[[Desk], Embedder] | None = None
    wrong_pooling: bool = False
    precision: str = "f32"
    without: frozenset[str] = frozenset()


def _bf16(desk: Desk) -> Embedder:
    """The CPU's own bf16, or an emulation on one that has none."""
    folder = desk.store.resolve(desk.settings.embedder, "embedder")
    try:
        return OpenVinoEmbedder.load(folder, precision="bf16", threads=desk.settings.threads)
    except UnsupportedModelError:
        return Bf16Embedder.load(folder, precision="f32", threads=desk.settings.threads)


BASELINE = Variant("nothing changed", False, "present")
VARIANTS = (
    Variant("BM25 leg off", True, "present", without=frozenset({"bm25"})),
    Variant(
        f"passages truncated to {KEPT_TOKENS} tokens",
        True,
        "truncated",
        embedder=lambda desk: TruncatingEmbedder(desk.pipeline.models.embedder),
    ),
    Variant("wrong pooling (first token)", True, "pooling", wrong_pooling=True),
    Variant("bf16", False, "bf16", embedder=_bf16),
    Variant("int8", False, "int8", precision="int8"),
)


async def run_variant(variant: Variant, dataset: Dataset, root: Path, threads: int) -> Run:
    """Ingest into the variant's folder what is not there, and ask every question."""
    overrides: dict[str, object] = {"threads": threads, "precision": variant.precision}
    if variant.wrong_pooling:
        overrides["embedder"] = str(_model_with_wrong_pooling(root / "wrong-pooling"))
    settings = settings_for(dataset, root / variant.folder, overrides)
    desk = await build(settings, command="eval.worse")
    embedder = None
    try:
        if variant.embedder is not None:
            embedder = variant.embedder(desk)
            desk = _with_embedder(desk, settings, embedder)
        corpus = await ingest(desk, dataset)
        return await evaluate(desk, dataset, corpus, without=variant.without)
    finally:
        if embedder is not None:
            await embedder.close()
        await desk.close()


def _with_embedder(desk: Desk, settings: Settings, embedder: Embedder) -> Desk:
    """The desk with another embedder in its pipeline; both share a fingerprint, since the same weights are meant."""
    models = replace(desk.pipeline.models, embedder=embedder)
    chunker = desk.pipeline.chunker
    pipeline = Pipeline(settings, desk.catalog, desk.index, writer=desk.writer, models=models, chunker=chunker)
    return replace(desk, pipeline=pipeline)


def _model_with_wrong_pooling(folder: Path) -> Path:
    """all-MiniLM-L6-v2, which was trained with mean pooling, told to take the first token."""
    source = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    shutil.copytree(source.path, folder, dirs_exist_ok=True)
    pooling = folder / "1_Pooling" / "config.json"
    config = json.loads(pooling.read_text())
    config |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    pooling.write_text(json.dumps(config))
    return folder


def table(dataset: Dataset, judged: Sequence[tuple[Variant, Comparison]]) -> Table:
    """A variant a row: what the gate saw in the two columns it judges, and whether it judged as it should."""
    found = Table(title=f"{dataset.name}: {len(dataset.questions)} questions, nDCG@10", title_justify="left")
    for head in ("against f32", "column", "Δ", "p", "win / tie / loss", "gate", "as it should"):
        found.add_column(head)
    for variant, comparison in judged:
        judged_columns = [one for one in comparison.columns if one.is_judged]
        for i, one in enumerate(judged_columns):
            first = i == 0
            verdict = "fails" if comparison.is_worse else "passes"
            found.add_row(
                variant.name if first else "",
                one.column,
                f"{one.delta:+.4f}",
                f"{one.p:.4f}",
                f"{one.wins} / {one.ties} / {one.losses}",
                verdict if first else "",
                ("yes" if comparison.is_worse == variant.must_fail else "NO") if first else "",
                end_section=i == len(judged_columns) - 1,
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m eval.worse", description=__doc__)
    parser.add_argument("dataset", type=Path, nargs="?", default=Path("../shared/data/squad"))
    parser.add_argument("--folder", type=Path, default=Path(".cache/eval/worse"))
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args(arguments)
    dataset = read_dataset(given.dataset)
    folder = kept(given.folder, commit_of_this_code()) / dataset.digest()

    def measured(variant: Variant) -> Baseline:
        output = folder / f"{dataset.name}-{variant.name.replace(' ', '-')}.json"
        if not output.exists():
            write(asyncio.run(run_variant(variant, dataset, folder, given.threads)), output)
        return read_baseline(output)

    judged, baseline = [], measured(BASELINE)
    for variant in VARIANTS:
        judged.append((variant, compare(baseline, measured(variant))))
        print(f"{variant.name}: {'fails' if judged[-1][1].is_worse else 'passes'}", flush=True)
    Console(width=120).print(table(dataset, judged))
    return 0 if all(comparison.is_worse == variant.must_fail for variant, comparison in judged) else 1


if __name__ == "__main__":
    command.run(main)
