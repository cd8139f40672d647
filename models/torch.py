"""Embedders by torch and sentence-transformers: any architecture that they load, on a GPU or the CPU.

A verified folder enters, an Embedder leaves. Weights are read from that folder alone, no code from it is run. Requests
share batches (models/dynamic.py).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from models.base import (
    EmbedderInfo,
    Float32,
    InputTooLongError,
    Int32,
    Passage,
    PassageEmbedding,
    Precision,
    QueryEmbedding,
    UInt8,
    UnsupportedModelError,
)
from models.checkpoint import (
    TextConfig,
    embedder_fingerprint,
    read_bert_config,
    read_embedding_config,
    read_text_config,
)
from models.dynamic import DynamicBatcher, Finish
from models.store import ModelFolder
from models.tokenizer import CheckpointTokenizer
from models.torch_device import (
    Copies,
    Device,
    choose_device,
    choose_precision,
    computing,
    dtype_of,
    folder_fingerprint,
    free,
    loading,
    padded,
)

_PACK = (128, 64, 32, 16, 8, 4, 2, 1)  # numpy.packbits' order


class TorchEmbedder:
    """Implements Embedder. Use `load`."""

    def __init__(self, folder: ModelFolder, text: TextConfig, model: "SentenceTransformer", *, device: Device) -> None:
        self.tokenizer = CheckpointTokenizer(folder.path / "tokenizer.json", lower_case=text.lower_case)
        special = self.tokenizer.special_tokens()
        before, self._before = np.array(special.before, np.int32), len(special.before)
        self._after = np.array(special.after, np.int32)
        self._query_prefix, self._passage_prefix = (
            np.concatenate([before, ids])
            for ids in self.tokenizer.encode_ids([text.query_prefix.rstrip(), text.passage_prefix.rstrip()])
        )
        self._folder, self._text, self._model, self._device = folder, text, model, device
        self._pad_id = int(getattr(model.tokenizer, "pad_token_id", None) or 0)
        self._weights = torch.tensor(_PACK, dtype=torch.uint8, device=device)

    @classmethod
    def load(
        cls, folder: ModelFolder, *, precision: Precision = "auto", threads: int = 0, batch_tokens: int = 4096
    ) -> "TorchEmbedder":
        """Load the weights; blocks for seconds. Raises UnsupportedModelError, ModelCorruptError."""
        device = choose_device()
        computed = choose_precision(precision, device)
        if threads:
            torch.set_num_threads(threads)
        with loading(folder):
            model = SentenceTransformer(
                str(folder.path), device=str(device), local_files_only=True, model_kwargs={"dtype": dtype_of(computed)}
            ).eval()
            embedder = cls(folder, read_text_config(folder.path), model, device=device)
            embedder._start(computed, batch_tokens)
        return embedder

    def _start(self, precision: str, batch_tokens: int) -> None:
        """Learn the dimensions from one forward pass, then take work."""
        with torch.inference_mode():
            probe = self._forward([np.concatenate([self._passage_prefix, self._after])], is_query=False)
        dimension = int(probe["sentence_embedding"].shape[-1])
        states = probe.get("token_embeddings")
        has_states = states is not None and states.ndim == 3 and int(states.shape[-1]) == dimension
        limits = (self._model.max_seq_length, self._text.max_tokens)
        self.info = EmbedderInfo(
            name=self._folder.name,
            fingerprint=self._fingerprint(),
            dimension=dimension,
            max_tokens=min(int(limit) for limit in limits if limit),
            special_tokens=len(self._passage_prefix) + len(self._after),
            precision=precision,
            has_token_vectors=has_states and dimension % 8 == 0,
        )
        self._batches = DynamicBatcher(self.info.name, self._launch, budget_tokens=batch_tokens)

    async def embed_passages(self, passages: Sequence[Passage], *, urgent: bool = False) -> list[PassageEmbedding]:
        """Embed in batches of at most `batch_tokens`, shared with other calls. Raises InputTooLongError."""
        asked = await asyncio.to_thread(self._passages, passages)
        results = await self._batches.run(asked, [len(one.ids) for one in asked], urgent=urgent)
        return [PassageEmbedding(one.vector, one.token_bits) for one in results]

    async def embed_queries(self, texts: Sequence[str]) -> list[QueryEmbedding]:
        """Embed questions, before any passages that wait; one over the limit is cut to its first tokens."""
        room = self.info.max_tokens - len(self._query_prefix) - len(self._after)
        asked = [
            _Asked(np.concatenate([self._query_prefix, ids[:room], self._after]), is_query=True)
            for ids in self.tokenizer.encode_ids(texts)
        ]
        results = await self._batches.run(asked, [len(one.ids) for one in asked], urgent=True)
        return [
            QueryEmbedding(result.vector, result.token_vectors, len(one.ids))
            for one, result in zip(asked, results, strict=True)
        ]

    async def close(self) -> None:
        """Let the batch under way end, then free the device's memory; later calls raise ModelUnavailableError."""
        await self._batches.close()
        self._model = None
        free(self._device)

    def _passages(self, passages: Sequence[Passage]) -> "list[_Asked]":
        bare = iter(self.tokenizer.encode_ids([p.text for p in passages if p.token_ids is None]))
        asked = []
        for i, passage in enumerate(passages):
            ids = next(bare) if passage.token_ids is None else passage.token_ids
            ids = np.concatenate([self._passage_prefix, ids, self._after])
            if len(ids) > self.info.max_tokens:
                raise InputTooLongError(
                    f"Passage {i} has {len(ids)} tokens, {self.info.special_tokens} of them special; "
                    f"{self.info.name!r} takes {self.info.max_tokens}. Cut it into smaller chunks."
                )
            asked.append(_Asked(ids, is_query=False))
        return asked

    def _launch(self, batch: "list[_Asked]") -> Finish["_Embedded"]:
        """Start one batch, all questions or all passages; the finish waits for what comes back from the device."""
        is_query = batch[0].is_query
        with torch.inference_mode(), computing(self._folder, self._device):
            found = self._forward([one.ids for one in batch], is_query=is_query)
            vectors = torch.nn.functional.normalize(found["sentence_embedding"].float(), dim=-1)
            states = found["token_embeddings"] if self.info.has_token_vectors else None
            if states is not None:
                states = torch.nn.functional.normalize(states.float(), dim=-1) if is_query else self._packed(states)
            copies = Copies(self._device, [vectors, states])
        lengths = [len(one.ids) for one in batch]
        return lambda: _unpacked(copies, lengths, is_query)

    def _forward(self, sequences: Sequence[Int32], *, is_query: bool) -> dict[str, "torch.Tensor"]:
        ids, mask = padded(sequences, self._pad_id, self._device)
        features = {"input_ids": ids, "attention_mask": mask}
        prefix = self._query_prefix if is_query else self._passage_prefix
        if len(prefix) > self._before:  # some poolings leave the prompt out
            features["prompt_length"] = len(prefix)
        return cast(dict[str, torch.Tensor], self._model(features))

    def _packed(self, states: "torch.Tensor") -> "torch.Tensor":
        """numpy.packbits of the signs, on the device: a 32nd of the bytes comes back."""
        signs = (states > 0).to(torch.uint8).unflatten(-1, (-1, 8))
        return (signs * self._weights).sum(-1, dtype=torch.uint8)

    def _fingerprint(self) -> str:
        """That of the OpenVINO embedder for a folder that both can run, so that their vectors may be compared."""
        try:
            config = read_bert_config(self._folder.path)
            settings = read_embedding_config(self._folder.path, config)
            weights = self._folder.manifest["model.safetensors"]
        except (UnsupportedModelError, KeyError):
            return folder_fingerprint(self._folder, self.tokenizer)
        return embedder_fingerprint(weights, self.tokenizer.fingerprint, config, settings)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One sequence, special tokens and prefix included."""

    ids: Int32
    is_query: bool


@dataclass(frozen=True, slots=True)
class _Embedded:
    vector: Float32
    token_bits: UInt8 | None
    token_vectors: Float32 | None


def _unpacked(copies: Copies, lengths: Sequence[int], is_query: bool) -> list[_Embedded]:
    vectors, states = copies.wait()
    assert vectors is not None
    rows = [None if states is None else states[i, :length].copy() for i, length in enumerate(lengths)]
    return [
        _Embedded(vector.copy(), None if is_query else row, row if is_query else None)
        for vector, row in zip(vectors, rows, strict=True)
    ]
