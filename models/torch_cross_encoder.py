"""Cross-encoders by torch and transformers: any sequence classifier with one or two labels, on a GPU or the CPU."""

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from models.base import Candidate, Float32, Precision, QueryEmbedding, RerankerInfo, UnsupportedModelError
from models.batching import pad
from models.checkpoint import cross_encoder_fingerprint, read_bert_config, read_text_config
from models.dynamic import DynamicBatcher, Finish
from models.store import ModelFolder
from models.tokenizer import CheckpointTokenizer, Pair, encode_pairs
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

_LIMITS = ("max_position_embeddings", "n_positions", "seq_length")


class TorchCrossEncoder:
    """Implements Reranker by reading question and passage together. Use `load`."""

    def __init__(self, folder: ModelFolder, model: "torch.nn.Module", *, device: Device, batch_tokens: int) -> None:
        self._tokenizer = CheckpointTokenizer(folder.path / "tokenizer.json")
        self._special = self._tokenizer.special_tokens()
        self._folder, self._model, self._device = folder, model, device
        self._pad_id = int(model.config.pad_token_id or 0)
        self._has_types = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1
        self._max_tokens = _max_tokens(folder, model.config)
        self.info = RerankerInfo(folder.name, self._fingerprint(), "text", "logit")
        self._batches = DynamicBatcher(folder.name, self._launch, budget_tokens=batch_tokens)

    @classmethod
    def load(
        cls, folder: ModelFolder, *, precision: Precision = "auto", threads: int = 0, batch_tokens: int = 4096
    ) -> "TorchCrossEncoder":
        """Load the weights; blocks for seconds. Raises UnsupportedModelError, ModelCorruptError."""
        device = choose_device()
        dtype = dtype_of(choose_precision(precision, device))
        if threads:
            torch.set_num_threads(threads)
        with loading(folder):
            model, loaded = AutoModelForSequenceClassification.from_pretrained(
                str(folder.path), dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            if missing := sorted(loaded["missing_keys"]):  # transformers would make them up at random
                raise UnsupportedModelError(
                    f"{str(folder.path)!r} lacks {', '.join(missing)}, which {type(model).__name__} needs; "
                    "runtime='openvino' builds heads without a pooler"
                )
            if model.config.num_labels not in (1, 2):
                raise UnsupportedModelError(
                    f"{str(folder.path)!r} has {model.config.num_labels} labels: a cross-encoder has 1 or 2"
                )
            return cls(folder, model.eval().to(device), device=device, batch_tokens=batch_tokens)

    async def rerank(self, query: str, embedding: QueryEmbedding | None, candidates: Sequence[Candidate]) -> Float32:
        """The logit of each pair; of two labels, the second's less the first's. Of a pair over the limit the
        longer text is cut. `embedding` is not read."""
        texts = [candidate.text for candidate in candidates]
        pairs = await asyncio.to_thread(encode_pairs, self._tokenizer, self._special, query, texts, self._max_tokens)
        return np.array(await self._batches.run(pairs, [len(pair) for pair in pairs]), np.float32)

    async def close(self) -> None:
        await self._batches.close()
        self._model = None
        free(self._device)

    def _launch(self, batch: list[Pair]) -> Finish[float]:
        with torch.inference_mode(), computing(self._folder, self._device):
            ids, mask = padded([pair.ids for pair in batch], self._pad_id, self._device)
            types = {}
            if self._has_types:
                matrix, _ = pad([pair.type_ids for pair in batch], 0)
                types = {"token_type_ids": torch.from_numpy(matrix).to(self._device, dtype=torch.int64)}
            logits = self._model(input_ids=ids, attention_mask=mask, **types).logits.float()
            scores = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
            copies = Copies(self._device, [scores])

        def finish() -> list[float]:
            (found,) = copies.wait()
            assert found is not None
            return cast(list[float], found.tolist())

        return finish

    def _fingerprint(self) -> str:
        try:
            config = read_bert_config(self._folder.path)
            weights = self._folder.manifest["model.safetensors"]
        except (UnsupportedModelError, KeyError):
            return folder_fingerprint(self._folder, self._tokenizer)
        return cross_encoder_fingerprint(weights, self._tokenizer.fingerprint, config)


def _max_tokens(folder: ModelFolder, config: object) -> int:
    """The least of what the architecture and the folder's tokenizer say."""
    try:
        limits = [read_bert_config(folder.path).max_tokens]
    except UnsupportedModelError:
        found = (getattr(config, name, None) for name in _LIMITS)
        limits = [limit for limit in found if isinstance(limit, int)]
    of_text = read_text_config(folder.path).max_tokens
    return min([*limits, *([of_text] if of_text else [])], default=512)
