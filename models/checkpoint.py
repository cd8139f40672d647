"""What a BERT-family checkpoint folder says about itself: config.json, the sentence-transformers files, the weights.

A folder enters, frozen values leave; whatever the graph of models/bert.py cannot compute is refused here, by name.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from models.base import Float32, ModelCorruptError, UnsupportedModelError

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
POOLINGS = ("mean", "cls")
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "F64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The shape of a BERT-family encoder, of config.json. `max_tokens` counts special tokens."""

    model_type: str
    hidden_size: int
    layers: int
    heads: int
    max_tokens: int
    position_offset: int  # the position of the first token: RoBERTa keeps the first ones for padding
    pad_token_id: int
    layer_norm_eps: float
    activation: str
    labels: int


@dataclass(frozen=True, slots=True)
class EmbeddingConfig:
    """What turns an encoder into an embedder: the folder's sentence-transformers configuration."""

    pooling: Literal["mean", "cls"]
    max_tokens: int
    query_prefix: str
    passage_prefix: str
    lower_case: bool


@dataclass(frozen=True, slots=True)
class TextConfig:
    """What a folder of any architecture says of the texts its embedder takes; `max_tokens` None: nothing."""

    max_tokens: int | None
    query_prefix: str
    passage_prefix: str
    lower_case: bool


def read_bert_config(folder: Path) -> BertConfig:
    """Read config.json. Raises UnsupportedModelError naming the setting, ModelCorruptError without a config.json."""
    config = _read_json(folder / "config.json")
    model_type = _one_of(config.get("model_type"), MODEL_TYPES, "model_type", folder)
    if model_type == "bert" and (config.get("is_decoder") or config.get("add_cross_attention")):
        raise _unsupported(folder, "is_decoder", True, (False,))
    _one_of(config.get("position_embedding_type") or "absolute", ("absolute",), "position_embedding_type", folder)
    activation = _one_of(config.get("hidden_act", "gelu"), ACTIVATIONS, "hidden_act", folder)
    labels = config.get("id2label")
    pad = _int(config, "pad_token_id", 0)
    offset = 0 if model_type == "bert" else pad + 1
    return BertConfig(
        model_type=model_type,
        hidden_size=_int(config, "hidden_size"),
        layers=_int(config, "num_hidden_layers"),
        heads=_int(config, "num_attention_heads"),
        max_tokens=_int(config, "max_position_embeddings", 512) - offset,
        position_offset=offset,
        pad_token_id=pad,
        layer_norm_eps=float(cast(float, config.get("layer_norm_eps", 1e-12))),
        activation=activation,
        labels=len(labels) if isinstance(labels, dict) else _int(config, "num_labels", 2),
    )


def read_embedding_config(folder: Path, config: BertConfig) -> EmbeddingConfig:
    """Pooling, limit and prefixes of an embedder's folder; without any, mean pooling as sentence-transformers does."""
    pooling_folder, modules = folder / "1_Pooling", _read_json(folder / "modules.json", missing=[])
    for module in cast(list[dict[str, str]], modules):
        kind = module["type"].rsplit(".", 1)[-1]
        _one_of(kind, ("Transformer", "Pooling", "Normalize"), "modules.json type", folder)
        if kind == "Pooling":
            pooling_folder = folder / module["path"]
    text = read_text_config(folder)
    pooling = _read_json(pooling_folder / "config.json", missing={"pooling_mode": "mean"})
    if pooling.get("include_prompt") is False and (text.query_prefix or text.passage_prefix):
        raise _unsupported(folder, "include_prompt", False, (True,))
    return EmbeddingConfig(
        pooling=cast(Literal["mean", "cls"], _pooling_mode(pooling, folder)),
        max_tokens=min(config.max_tokens, text.max_tokens or config.max_tokens),
        query_prefix=text.query_prefix,
        passage_prefix=text.passage_prefix,
        lower_case=text.lower_case,
    )


def read_text_config(folder: Path) -> TextConfig:
    """Limit and prefixes by sentence-transformers' files, whatever the architecture."""
    transformer = _read_json(folder / "sentence_bert_config.json", missing={})
    tokenizer = _read_json(folder / "tokenizer_config.json", missing={})
    limits = (transformer.get("max_seq_length"), tokenizer.get("model_max_length"))
    prompts = _prompts(folder)
    return TextConfig(
        max_tokens=min((int(n) for n in limits if isinstance(n, int | float) and n > 0), default=None),
        query_prefix=prompts["query"],
        passage_prefix=prompts["passage"],
        lower_case=bool(transformer.get("do_lower_case", False)),
    )


def embedder_fingerprint(weights: str, tokenizer: str, config: BertConfig, settings: EmbeddingConfig) -> str:
    """Who makes the vectors, whatever runtime computes them: over the weights' sha256, tokenizer, shape and pooling."""
    pooling = (settings.pooling, settings.query_prefix, settings.passage_prefix)
    return _sha256(weights, tokenizer, sorted(asdict(config).items()), pooling)


def cross_encoder_fingerprint(weights: str, tokenizer: str, config: BertConfig) -> str:
    """Who makes the scores, whatever runtime computes them."""
    return _sha256(weights, tokenizer, sorted(asdict(config).items()))


def _sha256(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()


def read_weights(folder: Path) -> dict[str, Float32]:
    """Every floating tensor of model.safetensors by name, the architecture's prefix ("bert.") taken off, float32.

    float32 tensors are views of the mapped file: an embedding table costs page cache rather than memory of its own.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UnsupportedModelError(
            f"{str(folder)!r} has no model.safetensors. Only that format is read: save the model with "
            "save_pretrained(...), as one file."
        )
    try:
        tensors = _map_tensors(path)
    except (ValueError, KeyError, OSError) as exc:
        raise ModelCorruptError(f"{str(path)!r} is no safetensors file: {exc}. Restore the model's folder.") from exc
    stem = "embeddings.word_embeddings.weight"
    prefix = next((name[: -len(stem)] for name in tensors if name.endswith(stem)), "")
    return {_current_name(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}


def _map_tensors(path: Path) -> dict[str, Float32]:
    """The safetensors layout: header length (uint64), header (JSON: name → dtype, shape, data_offsets), data."""
    data = np.memmap(path, np.uint8, "c")  # copy on write, never written: OpenVINO wants a writeable array to share
    start = 8 + int(data[:8].view("<u8")[0])
    tensors: dict[str, Float32] = {}
    for name, entry in json.loads(data[8:start].tobytes()).items():
        if name != "__metadata__" and entry["dtype"] in _DTYPES:
            begin, end = entry["data_offsets"]
            raw = np.asarray(data[start + begin : start + end]).view(_DTYPES[entry["dtype"]])
            tensors[name] = _float32(raw, entry["dtype"]).reshape(entry["shape"])
    return tensors


def _float32(raw: NDArray[Any], dtype: str) -> Float32:
    if dtype == "BF16":  # bfloat16 is the upper half of a float32
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return np.require(raw, np.float32, "A")


def _current_name(name: str) -> str:
    """BERT's first checkpoints call a layer norm's weight and bias gamma and beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _prompts(folder: Path) -> dict[str, str]:
    """Prefixes by use, chosen as sentence-transformers' encode_query and encode_document choose them."""
    config = _read_json(folder / "config_sentence_transformers.json", missing={})
    prompts = cast(dict[str, str], config.get("prompts") or {})
    default = prompts.get(str(config.get("default_prompt_name")), "")
    passage = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), default)
    return {"query": prompts.get("query", default) or "", "passage": passage or ""}


def _pooling_mode(pooling: Json, folder: Path) -> str:
    modes = pooling.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if pooling.get(key)]
    if isinstance(modes, list):
        modes = modes[0] if len(modes) == 1 else "+".join(modes)
    return _one_of(modes, POOLINGS, "pooling_mode", folder)


def _read_json(path: Path, missing: object = None) -> dict[str, object]:
    """A JSON file's content; `missing` for a file that is not there, or ModelCorruptError if that is None."""
    try:
        return cast(dict[str, object], json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as exc:
        if missing is None:
            raise ModelCorruptError(f"{str(path)!r} is missing: a checkpoint folder needs it.") from exc
        return cast(dict[str, object], missing)
    except ValueError as exc:
        raise ModelCorruptError(f"{str(path)!r} is no JSON: {exc}. Restore the model's folder.") from exc


def _int(config: Json, key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int):
        raise ModelCorruptError(f"config.json has {key}={value!r} where a number belongs. Restore the model's folder.")
    return value


def _one_of(value: object, supported: tuple[str, ...], key: str, folder: Path) -> str:
    if value not in supported:
        raise _unsupported(folder, key, value, supported)
    return str(value)


def _unsupported(folder: Path, key: str, value: object, supported: tuple[object, ...]) -> UnsupportedModelError:
    choices = ", ".join(repr(choice) for choice in supported)
    return UnsupportedModelError(f"{str(folder)!r} has {key}={value!r}, which is not supported; supported: {choices}.")
