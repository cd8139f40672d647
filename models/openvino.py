"""Embedders and cross-encoders on the CPU: a verified model folder enters, an Embedder or a Reranker leaves.

Questions have a compiled model, requests and threads of their own, so that bulk embedding never holds them: measured,
a question beside bulk work takes 10 ms so and 102 ms on one shared model.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import openvino as ov

from models.base import (
    Candidate,
    EmbedderInfo,
    Float32,
    InputTooLongError,
    Int32,
    Passage,
    PassageEmbedding,
    Precision,
    QueryEmbedding,
    RerankerInfo,
    UnsupportedModelError,
)
from models.batching import even_budget, pad, plan_batches
from models.bert import build_cross_encoder, build_embedder
from models.checkpoint import (
    BertConfig,
    EmbeddingConfig,
    cross_encoder_fingerprint,
    embedder_fingerprint,
    read_bert_config,
    read_embedding_config,
    read_weights,
)
from models.int8 import AGREES, GROUP, PROBES, QUESTION_GROUP, agreement, compiled_with, is_native
from models.lane import Infer, Lane, choose_precision, map_errors
from models.priority import Priority
from models.store import ModelFolder
from models.tokenizer import CheckpointTokenizer, Pair, encode_pairs, start_threads

log = logging.getLogger("refdesk.models")

Computed = Literal["int8", "bf16", "f32"]
_QUESTION_TOKENS = (12, 16, 24, 32, 48)  # one question is padded to one of these, each with a graph of that one shape …
_SMALL_BYTES = 150_000_000  # … if its weights are few enough to be there once more for each
_URGENT_TOKENS = 512  # of a batch of passages that somebody waits for: a question waits 10 ms for one at most
_SPARE = 1  # one batch is padded or unpacked while the others compute


class OpenVinoEmbedder:
    """Implements Embedder. Use `load`."""

    def __init__(self, folder: ModelFolder, config: BertConfig, settings: EmbeddingConfig) -> None:
        self.tokenizer = CheckpointTokenizer(folder.path / "tokenizer.json", lower_case=settings.lower_case)
        self._config, self._settings, self._folder = config, settings, folder
        special = self.tokenizer.special_tokens()
        self._before, self._after = special.before, np.array(special.after, np.int32)
        self._query_prefix, self._passage_prefix = (
            np.concatenate([np.array(special.before, np.int32), *self.tokenizer.encode_ids([prefix.rstrip()])])
            # a prefix ends in white space, which belongs to the word after it in SentencePiece, to nothing in WordPiece
            for prefix in (settings.query_prefix, settings.passage_prefix)
        )

    @classmethod
    def load(
        cls,
        folder: ModelFolder,
        *,
        precision: Precision = "auto",
        threads: int = 0,
        batch_tokens: int = 4096,
        bulk: Priority = "low",
    ) -> "OpenVinoEmbedder":
        """Build and compile; blocks for about a second. Raises UnsupportedModelError, ModelCorruptError.

        `precision`: "auto" is int8 where the CPU multiplies it fastest and this model's vectors bear it, else bf16
        where the CPU computes in it, else f32. `bulk`: at which priority passages are embedded beside questions.
        """
        config = read_bert_config(folder.path)
        embedder = cls(folder, config, read_embedding_config(folder.path, config))
        embedder._start(precision, threads, batch_tokens, bulk)
        return embedder

    def _start(self, precision: Precision, threads: int, batch_tokens: int, bulk: Priority) -> None:
        start_threads(self.tokenizer, bulk)
        core, settings = ov.Core(), self._settings
        with map_errors(self._folder.name):
            model, computed = self._choose(core, precision)
        is_small = (self._folder.path / "model.safetensors").stat().st_size <= _SMALL_BYTES
        self._widths = tuple(width for width in _QUESTION_TOKENS if is_small and width <= settings.max_tokens)
        questions = [model, *(_of_one_question(model, width) for width in self._widths)]
        compiled = partial(_compile, core, computed=computed, threads=threads)
        self._batch_tokens = batch_tokens
        name, bulk_models = self._folder.name, partial(compiled, [model], hint="THROUGHPUT")
        self._queries = Lane(name, partial(compiled, questions, hint="LATENCY"), spare=_SPARE)
        self._bulk = Lane(name, bulk_models, spare=_SPARE, bulk=bulk)
        self.info = EmbedderInfo(
            name=self._folder.name,
            fingerprint=self._fingerprint(),
            dimension=self._config.hidden_size,
            max_tokens=settings.max_tokens,
            special_tokens=len(self._passage_prefix) + len(self._after),
            precision=computed,
            has_token_vectors=self._config.hidden_size % 8 == 0,
        )

    def _choose(self, core: ov.Core, precision: Precision) -> tuple[ov.Model, Computed]:
        """The graph to compute with, and in what: int8 is held against f32 on a few texts before it is trusted."""
        floating = choose_precision(precision, core)
        exact = self._graph()
        if precision != "int8" and not (precision == "auto" and is_native()):
            return exact, floating
        whole = self._graph(int8=True)
        cosine = agreement(core, exact, whole, pad(self._query_ids(PROBES), self._config.pad_token_id))
        if cosine >= AGREES:
            return whole, "int8"
        found = f"{self._folder.name!r} in int8 is too far from itself in f32: cosine {cosine:.4f}, wanted {AGREES}"
        if precision == "int8":
            raise UnsupportedModelError(f"{found}. Set precision='auto', 'bf16' or 'f32'.")
        log.warning("%s; it computes in %s", found, floating)
        return exact, floating

    def _graph(self, int8: bool = False) -> ov.Model:
        return build_embedder(self._config, read_weights(self._folder.path), self._settings.pooling, int8=int8)

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        """Embed in length-sorted batches of at most `batch_tokens`. Raises InputTooLongError, ModelUnavailableError.

        `urgent` ones go by the questions' lane, in small batches between which questions come in.
        """
        lane = self._queries if urgent else self._bulk
        sequences = await lane.run(lambda _: self._passage_ids(passages, urgent))
        lengths = [len(ids) for ids in sequences]
        most = min(_URGENT_TOKENS, self._batch_tokens) if urgent else self._batch_tokens
        batches = plan_batches(lengths, even_budget(lengths, most, lane.streams))
        return await lane.run_batches(self._embed_batch, sequences, batches)

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        """Embed questions, in the queries' own lane; one over the limit is cut to its first tokens."""
        if len(texts) == 1:  # the usual case: one thread hop instead of two
            return await self._queries.run(lambda infer: self._embed_questions(infer, self._query_ids(texts)))
        sequences = await self._queries.run(lambda _: self._query_ids(texts))
        most = min(_URGENT_TOKENS, self._batch_tokens)
        batches = plan_batches([len(ids) for ids in sequences], most)
        return await self._queries.run_batches(self._embed_questions, sequences, batches)

    async def close(self) -> None:
        """Wait for the work under way; later calls raise ModelUnavailableError."""
        await asyncio.gather(self._queries.close(), self._bulk.close())

    def _passage_ids(self, passages: Sequence[Passage], urgent: bool) -> list[Int32]:
        known = {i: passage.token_ids for i, passage in enumerate(passages) if passage.token_ids is not None}
        bare = [i for i in range(len(passages)) if i not in known]
        texts = [passages[i].text for i in bare]
        encode = self.tokenizer.encode_ids
        # urgent ones one by one, here: a batch goes to the library's threads, behind what is being chunked
        ids_of = [encode([text])[0] for text in texts] if urgent else encode(texts)
        known.update(zip(bare, ids_of, strict=True))
        sequences = [np.concatenate([self._passage_prefix, known[i], self._after]) for i in range(len(passages))]
        for i, ids in enumerate(sequences):
            if len(ids) > self.info.max_tokens:
                raise InputTooLongError(
                    f"Passage {i} has {len(ids)} tokens, {self.info.special_tokens} of them special; "
                    f"{self.info.name!r} takes {self.info.max_tokens}. Cut it into smaller chunks."
                )
        return sequences

    def _query_ids(self, texts: Sequence[str]) -> list[Int32]:
        room = self._settings.max_tokens - len(self._query_prefix) - len(self._after)
        return [
            np.concatenate([self._query_prefix, ids[:room], self._after]) for ids in self.tokenizer.encode_ids(texts)
        ]

    def _embed_batch(self, infer: Infer, sequences: Sequence[Int32]) -> list[PassageEmbedding]:
        vectors, states = infer(*pad(sequences, self._config.pad_token_id))
        vectors = vectors.copy()
        if not self.info.has_token_vectors:
            return [PassageEmbedding(vector, None) for vector in vectors]
        bits = np.packbits(states > 0, axis=-1)
        return [
            PassageEmbedding(vector, rows[: len(ids)].copy())
            for vector, rows, ids in zip(vectors, bits, sequences, strict=True)
        ]

    def _embed_questions(self, infer: Infer, sequences: Sequence[Int32]) -> list[QueryEmbedding]:
        vectors, states = infer(*pad(sequences, self._config.pad_token_id, self._width(sequences)))
        return [
            QueryEmbedding(vector, rows[: len(ids)].copy() if self.info.has_token_vectors else None, len(ids))
            for vector, rows, ids in zip(vectors.copy(), states, sequences, strict=True)
        ]

    def _width(self, sequences: Sequence[Int32]) -> int:
        """How wide to pad: between two shapes the runtime prepares a graph anew, 1.5 ms of a question's 5."""
        if len(sequences) > 1:
            return 0
        return next((width for width in self._widths if width >= len(sequences[0])), 0)

    def _fingerprint(self) -> str:
        weights = self._folder.manifest["model.safetensors"]
        return embedder_fingerprint(weights, self.tokenizer.fingerprint, self._config, self._settings)


class OpenVinoCrossEncoder:
    """Implements Reranker by reading question and passage together. Use `load`."""

    def __init__(self, folder: ModelFolder, config: BertConfig, lane: Lane, batch_tokens: int) -> None:
        self._tokenizer = CheckpointTokenizer(folder.path / "tokenizer.json")
        self._special, self._config = self._tokenizer.special_tokens(), config
        self._lane, self._batch_tokens = lane, batch_tokens
        weights = folder.manifest["model.safetensors"]
        fingerprint = cross_encoder_fingerprint(weights, self._tokenizer.fingerprint, config)
        self.info = RerankerInfo(folder.name, fingerprint, "text", "logit")

    @classmethod
    def load(
        cls, folder: ModelFolder, *, precision: Precision = "auto", threads: int = 0, batch_tokens: int = 4096
    ) -> "OpenVinoCrossEncoder":
        """Build and compile; blocks for about a second. Raises UnsupportedModelError, ModelCorruptError.

        `precision`: as an embedder's, but never int8, for which a pair's logit has not been measured.
        """
        config = read_bert_config(folder.path)
        if config.labels not in (1, 2):
            raise UnsupportedModelError(
                f"Cross-encoder {folder.name!r} has {config.labels!r} labels; supported: 1 (a score), 2 (no, yes)."
            )
        core = ov.Core()
        computed = choose_precision(precision, core)
        with map_errors(folder.name):
            model = build_cross_encoder(config, read_weights(folder.path))
        compiled = partial(_compile, core, [model], computed=computed, threads=threads, hint="LATENCY")
        lane = Lane(folder.name, compiled, spare=_SPARE)
        return cls(folder, config, lane, batch_tokens)

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """The logit of each pair (one label), or how far the second label's is above the first's (two).

        Of a pair over the limit the longer text is cut. `embedding` is not read.
        """
        pairs = await self._lane.run(lambda _: self._pairs(query, candidates))
        batches = plan_batches([len(pair) for pair in pairs], self._batch_tokens)
        return np.array(await self._lane.run_batches(self._score, pairs, batches), np.float32)

    async def close(self) -> None:
        await self._lane.close()

    def _pairs(self, query: str, candidates: Sequence[Candidate]) -> list[Pair]:
        texts = [candidate.text for candidate in candidates]
        return encode_pairs(self._tokenizer, self._special, query, texts, self._config.max_tokens)

    def _score(self, infer: Infer, pairs: Sequence[Pair]) -> list[float]:
        ids, lengths = pad([pair.ids for pair in pairs], self._config.pad_token_id)
        types, _ = pad([pair.type_ids for pair in pairs], 0)
        (logits,) = infer(ids, types, lengths)
        scores: list[float] = (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).tolist()
        return scores


def _of_one_question(model: ov.Model, tokens: int) -> ov.Model:
    """The graph for inputs of (1, tokens) alone."""
    fixed = model.clone()
    fixed.reshape({0: [1, tokens], 1: [1]})
    return fixed


def _compile(
    core: ov.Core,
    models: Sequence[ov.Model],
    *,
    computed: Computed,
    threads: int,
    hint: Literal["LATENCY", "THROUGHPUT"],
) -> list[ov.CompiledModel]:
    """LATENCY: one batch on all cores. THROUGHPUT: a few batches on a few cores each, a tenth faster when there are.

    A graph of one shape is of one question: one thread computes it, as fast as two that wait for each other at each of
    a hundred steps, and for two thirds of the time of the cores, on which the BM25 leg and other questions run.
    """
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": hint}
    if computed == "int8":  # what is not a linear layer computes in what the runtime takes itself
        settings |= compiled_with(QUESTION_GROUP if hint == "LATENCY" else GROUP)
    else:
        settings["INFERENCE_PRECISION_HINT"] = computed
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    alone: dict[str, str | int] = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    if computed == "int8":
        alone["INFERENCE_PRECISION_HINT"] = "f32"  # of so few tokens, converting to bf16 and back takes longer

    def compiled(model: ov.Model) -> ov.CompiledModel:
        return core.compile_model(model, "CPU", settings if model.is_dynamic() else settings | alone)

    with ThreadPoolExecutor(len(models)) as executor:  # each takes a fifth of a second
        return list(executor.map(compiled, models))
