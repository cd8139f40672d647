"""Small BERT-family folders with random weights, the same on every machine: a specimen enters, a model folder leaves.

What a trained model is worth only a trained model shows; that the arithmetic is right, these show in every shape that
models/bert.py builds. numpy's RandomState is frozen by its maintainers, so the weights need not be stored.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Weights = dict[str, NDArray[np.floating]]

_PREFIX = {"bert": "bert.", "xlm-roberta": "roberta."}
_HEAD = {"bert": "Bert", "xlm-roberta": "XLMRoberta"}
_SPECIAL = {"bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "xlm-roberta": ("<s>", "<pad>", "</s>", "<unk>")}
_WORDS = (
    *("the", "of", "and", "is", "in", "a", "how", "often", "must", "pump", "be"),
    *("serviced", "every", "year", "cells", "white", "matter", "日", "本"),
)


@dataclass(frozen=True, slots=True)
class Specimen:
    """One shape. `labels` 0: an embedder; else a cross-encoder with that many."""

    name: str
    seed: int
    model_type: str = "bert"
    hidden_size: int = 32
    layers: int = 2
    heads: int = 4
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    max_tokens: int = 64
    labels: int = 0
    pooler: bool = True
    pooling: str = "mean"
    dtype: str = "float32"
    prompts: dict[str, str] = field(default_factory=dict)


SPECIMENS = (
    Specimen("one-label", 1, labels=1),
    Specimen("two-labels", 2, hidden_size=48, heads=3, layers=3, labels=2, activation="gelu_new", layer_norm_eps=1e-6),
    Specimen("two-labels-no-pooler", 3, hidden_size=64, heads=8, layers=1, labels=2, pooler=False, activation="relu"),
    Specimen("roberta-one-label", 4, "xlm-roberta", hidden_size=40, heads=5, labels=1, layer_norm_eps=1e-5),
    Specimen("cls-prompts", 5, pooling="cls", dtype="float16", prompts={"query": "how: ", "document": "year: "}),
    Specimen("roberta-mean", 6, "xlm-roberta", hidden_size=40, heads=2, layer_norm_eps=1e-5, max_tokens=40),
)


def write_checkpoint(specimen: Specimen, folder: Path) -> Path:
    """Write config.json, tokenizer.json, model.safetensors and, for an embedder, sentence-transformers' files."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary(specimen.model_type)
    for name, content in _json_files(specimen, vocabulary).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    save_file(dict(_weights(specimen, len(vocabulary))), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _vocabulary(model_type: str) -> list[str]:
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    return [
        *_SPECIAL[model_type],
        *_WORDS,
        *(c for c in characters if c not in _WORDS),
        *("##" + c for c in characters),
    ]


def _weights(specimen: Specimen, words: int) -> Weights:
    """Drawn in the order of this list; 0.2 wide, so that logits are of the order of 1 and errors show."""
    size, wide = specimen.hidden_size, 2 * specimen.hidden_size
    positions = specimen.max_tokens + (2 if specimen.model_type == "xlm-roberta" else 0)
    types = 1 if specimen.model_type == "xlm-roberta" else 2
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (words, size),
        "embeddings.position_embeddings.weight": (positions, size),
        "embeddings.token_type_embeddings.weight": (types, size),
        **_norm("embeddings.LayerNorm", size),
    }
    for n in range(specimen.layers):
        layer = f"encoder.layer.{n}."
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}attention.self.{part}", size, size)
        shapes |= _linear(f"{layer}attention.output.dense", size, size)
        shapes |= _norm(f"{layer}attention.output.LayerNorm", size)
        shapes |= _linear(f"{layer}intermediate.dense", wide, size) | _linear(f"{layer}output.dense", size, wide)
        shapes |= _norm(f"{layer}output.LayerNorm", size)
    prefix = _PREFIX[specimen.model_type] if specimen.labels else ""
    shapes = {prefix + name: shape for name, shape in shapes.items()} | _head(specimen, prefix)
    random = np.random.RandomState(specimen.seed)
    return {
        name: (random.standard_normal(shape) * 0.2 + name.endswith("LayerNorm.weight")).astype(specimen.dtype)
        for name, shape in shapes.items()
    }


def _head(specimen: Specimen, prefix: str) -> dict[str, tuple[int, ...]]:
    size, labels = specimen.hidden_size, specimen.labels
    if not labels:
        return {}
    if specimen.model_type == "xlm-roberta":
        return _linear("classifier.dense", size, size) | _linear("classifier.out_proj", labels, size)
    pooler = _linear(f"{prefix}pooler.dense", size, size) if specimen.pooler else {}
    return pooler | _linear("classifier", labels, size)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _json_files(specimen: Specimen, vocabulary: list[str]) -> dict[str, object]:
    roberta = specimen.model_type == "xlm-roberta"
    head = "ForSequenceClassification" if specimen.labels else "Model"
    config = {
        "architectures": [_HEAD[specimen.model_type] + head],
        "model_type": specimen.model_type,
        "hidden_size": specimen.hidden_size,
        "num_hidden_layers": specimen.layers,
        "num_attention_heads": specimen.heads,
        "intermediate_size": 2 * specimen.hidden_size,
        "hidden_act": specimen.activation,
        "layer_norm_eps": specimen.layer_norm_eps,
        "max_position_embeddings": specimen.max_tokens + 2 * roberta,
        "type_vocab_size": 1 if roberta else 2,
        "vocab_size": len(vocabulary),
        "pad_token_id": 1 if roberta else 0,
        "id2label": {str(n): f"LABEL_{n}" for n in range(specimen.labels or 2)},
    }
    pad, unknown, before, after = _named_special(specimen.model_type)
    files: dict[str, object] = {
        "config.json": config,
        "tokenizer.json": _tokenizer(specimen.model_type, vocabulary),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": specimen.max_tokens,
            "pad_token": pad,
            "unk_token": unknown,
            "cls_token": before,
            "sep_token": after,
        },
    }
    if not specimen.labels:
        files |= _sentence_transformers_files(specimen)
    return files


def _sentence_transformers_files(specimen: Specimen) -> dict[str, object]:
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return {
        "modules.json": [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": specimen.hidden_size,
            "pooling_mode_cls_token": specimen.pooling == "cls",
            "pooling_mode_mean_tokens": specimen.pooling == "mean",
        },
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": specimen.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": specimen.prompts},
    }


def _named_special(model_type: str) -> tuple[str, str, str, str]:
    """pad, unknown, what begins a text, what ends it."""
    names = _SPECIAL[model_type]
    return (
        (names[0], names[1], names[2], names[3]) if model_type == "bert" else (names[1], names[3], names[0], names[2])
    )


def _tokenizer(model_type: str, vocabulary: list[str]) -> dict[str, object]:
    _, unknown, before, after = _named_special(model_type)
    middle, second = ([after], 1) if model_type == "bert" else ([after, after], 0)

    def special(token: str, type_id: int = 0) -> dict[str, object]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def text(which: str, type_id: int = 0) -> dict[str, object]:
        return {"Sequence": {"id": which, "type_id": type_id}}

    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary.index(t), "content": t, **flags} for t in _SPECIAL[model_type]],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special(before), text("A"), special(after)],
            "pair": [special(before), text("A"), *map(special, middle), text("B", second), special(after, second)],
            "special_tokens": {t: {"id": t, "ids": [vocabulary.index(t)], "tokens": [t]} for t in (before, after)},
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: n for n, token in enumerate(vocabulary)},
        },
    }
