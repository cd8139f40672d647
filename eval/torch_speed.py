"""Passages a second of the torch models by batch budget, against sentence-transformers' own `encode` and `predict`.

`python -m eval.torch_speed`, in an environment with torch (the extra `gpu`); on the GPU if there is one. Real passages
of SciFact, cut to the model's limit. The cross-encoder has MiniLM-L6's shape and random weights: speed, not worth.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from shutil import copy
from typing import Literal

import torch
import transformers
from rich.console import Console
from rich.table import Table
from sentence_transformers import CrossEncoder, SentenceTransformer

from models.base import Candidate, Passage
from models.store import ModelFolder, ModelStore
from models.torch import TorchEmbedder
from models.torch_cross_encoder import TorchCrossEncoder
from models.torch_device import choose_device, choose_precision, dtype_of

CORPUS = Path("../shared/data/scifact/corpus.jsonl")
QUESTION = "how often must the pump in the north hall be serviced"
BUDGETS = {"cpu": (1024, 4096, 16_384), "cuda": (4096, 16_384, 65_536, 131_072, 262_144)}
BATCHES = {"cpu": (32,), "cuda": (32, 128, 512, 1024)}  # 32 is sentence-transformers' default
Run = Callable[[], Awaitable[object]]


def passages(embedder: TorchEmbedder, count: int) -> list[Passage]:
    """The beginnings of documents that fit, with their tokens; their lengths vary as real ones do."""
    room = embedder.info.max_tokens - embedder.info.special_tokens
    found = []
    for line in CORPUS.read_text(encoding="utf-8").splitlines()[:count]:
        text = json.loads(line)["text"]
        (tokens,) = embedder.tokenizer.encode_batch([text])
        cut = text if len(tokens) <= room else text[: int(tokens.offsets[room - 1, 1])]
        found.append(Passage(cut, tokens.ids[:room]))
    return found


def random_cross_encoder(folder: Path) -> ModelFolder:
    """MiniLM-L6's shape with one label, random weights, and all-MiniLM-L6-v2's vocabulary, as a verified folder."""
    vocabulary = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=1
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copy(vocabulary / name, folder / name)
    return ModelStore(None).resolve(folder, "cross-encoder")


async def rate(run: Run, count: int, repeats: int) -> float:
    """Items a second: the median of some runs after one that warms up."""
    await run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        await run()
        seconds.append(time.perf_counter() - start)
    return count / statistics.median(seconds)


async def embedding(table: Table, precision: Literal["bf16", "f32"], count: int, repeats: int) -> None:
    """Rows of the embedder: ours by budget, then encode() by batch size, in the same precision and in its default."""
    device = choose_device()
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    texts: list[Passage] = []
    for budget in BUDGETS[device.type]:
        embedder = TorchEmbedder.load(folder, precision=precision, batch_tokens=budget)
        texts = texts or passages(embedder, count)
        speed = await rate(partial(embedder.embed_passages, texts), count, repeats)
        table.add_row(f"refdesk, token vectors too, {precision}", f"{budget:,} tokens", f"{speed:,.0f}")
        await embedder.close()
    words = [passage.text for passage in texts]
    for kind in dict.fromkeys((precision, "f32")):
        model = SentenceTransformer(str(folder.path), device=str(device), model_kwargs={"dtype": dtype_of(kind)})
        for size in BATCHES[device.type]:
            own = partial(asyncio.to_thread, model.encode, words, batch_size=size, show_progress_bar=False)
            table.add_row(f"encode(), {kind}", f"{size} texts", f"{await rate(own, count, repeats):,.0f}")


async def reranking(table: Table, precision: Literal["bf16", "f32"], count: int, repeats: int) -> None:
    """Rows of the cross-encoder: ours by budget, then predict()."""
    device = choose_device()
    texts = [json.loads(line)["text"][:1000] for line in CORPUS.read_text(encoding="utf-8").splitlines()[:count]]
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_cross_encoder(Path(scratch))
        for budget in BUDGETS[device.type]:
            ours = TorchCrossEncoder.load(folder, precision=precision, batch_tokens=budget)
            run = partial(ours.rerank, QUESTION, None, [Candidate(text) for text in texts])
            speed = await rate(run, count, repeats)
            table.add_row(f"cross-encoder, refdesk, {precision}", f"{budget:,} tokens", f"{speed:,.0f}")
            await ours.close()
        kind = {"dtype": dtype_of(precision)}
        model = CrossEncoder(str(folder.path), device=str(device), max_length=512, model_kwargs=kind)
        pairs = [(QUESTION, text) for text in texts]
        for size in BATCHES[device.type]:
            own = partial(asyncio.to_thread, model.predict, pairs, batch_size=size, show_progress_bar=False)
            table.add_row(f"predict(), {precision}", f"{size} pairs", f"{await rate(own, count, repeats):,.0f}")


async def measure(arguments: argparse.Namespace) -> Table:
    device = choose_device()
    precision = choose_precision("auto", device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table(title=f"{name}, torch {torch.__version__}, {arguments.count} passages, one run")
    table.add_column("what")
    table.add_column("batch")
    table.add_column("a second", justify="right")
    await embedding(table, precision, arguments.count, arguments.repeats)
    await reranking(table, precision, arguments.count, arguments.repeats)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=256, help="passages; a GPU wants 5,000")
    parser.add_argument("--repeats", type=int, default=3)
    Console(width=120).print(asyncio.run(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
