"""The graphs equal what torch computes (tests/references, written by eval/references.py), and the rest is refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.checkpoints import SPECIMENS, Specimen, write_checkpoint
from eval.references import PAIRS, QUERIES, TARGET, TEXTS
from models.base import (
    Candidate,
    Float32,
    InputTooLongError,
    ModelCorruptError,
    ModelUnavailableError,
    Passage,
    Precision,
    UnsupportedModelError,
)
from models.checkpoint import read_bert_config, read_embedding_config, read_weights
from models.int8 import AGREES, GROUP, PROBES, quantised
from models.lane import choose_precision, map_errors
from models.openvino import OpenVinoCrossEncoder, OpenVinoEmbedder
from models.store import ModelStore

EMBEDDERS = [one for one in SPECIMENS if not one.labels]
CROSS_ENCODERS = [one for one in SPECIMENS if one.labels]
_WEIGHTS = st.floats(-100, 100, width=32, allow_subnormal=False)


def _named(specimen: Specimen) -> str:
    return specimen.name


async def _vectors(folder: str | Path, precision: Precision, texts: Sequence[str]) -> tuple[Float32, Float32]:
    """Passages cut to the model's limit, as sentence-transformers cuts them; questions as they are."""
    embedder = OpenVinoEmbedder.load(ModelStore(None).resolve(folder, "embedder"), precision=precision)
    room = embedder.info.max_tokens - embedder.info.special_tokens
    passages = [Passage("", tokens.ids[:room]) for tokens in embedder.tokenizer.encode_batch(texts)]
    vectors = np.stack([one.vector for one in await embedder.embed_passages(passages)])
    questions = np.stack([one.vector for one in await embedder.embed_queries(QUERIES)])
    await embedder.close()
    return vectors, questions


@pytest.fixture(scope="module")
def references() -> dict[str, Float32]:
    with np.load(TARGET) as stored:
        return {name: stored[name] for name in stored.files if name != "versions"}


async def test_vectors_equal_sentence_transformers(references: dict[str, Float32]) -> None:
    passages, questions = await _vectors("all-MiniLM-L6-v2", "f32", TEXTS)
    np.testing.assert_allclose(passages, references["minilm"], atol=1e-4, rtol=0)
    expected = references["minilm"][[TEXTS.index(query) for query in QUERIES]]
    np.testing.assert_allclose(questions, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("specimen", EMBEDDERS, ids=_named)
async def test_poolings_prefixes_and_roberta(
    specimen: Specimen, references: dict[str, Float32], tmp_path: Path
) -> None:
    passages, questions = await _vectors(write_checkpoint(specimen, tmp_path / specimen.name), "f32", TEXTS)
    np.testing.assert_allclose(passages, references[specimen.name], atol=1e-4, rtol=0)
    np.testing.assert_allclose(questions, references[f"{specimen.name}.queries"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("specimen", CROSS_ENCODERS, ids=_named)
async def test_logits_equal_torch(specimen: Specimen, references: dict[str, Float32], tmp_path: Path) -> None:
    folder = ModelStore(None).resolve(write_checkpoint(specimen, tmp_path / specimen.name), "cross-encoder")
    reranker = OpenVinoCrossEncoder.load(folder, precision="f32", batch_tokens=256)
    logits = references[specimen.name]
    expected = logits[:, 0] if specimen.labels == 1 else logits[:, 1] - logits[:, 0]
    assert np.ptp(expected) > 0.4  # else equality would say little
    for query in dict.fromkeys(query for query, _ in PAIRS):
        rows = [row for row, pair in enumerate(PAIRS) if pair[0] == query]
        scores = await reranker.rerank(query, None, [Candidate(PAIRS[row][1]) for row in rows])
        np.testing.assert_allclose(scores, expected[rows], atol=1e-4, rtol=0)
    await reranker.close()


async def test_bf16_is_near_f32(references: dict[str, Float32]) -> None:
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes no bf16, and OpenVINO emulates none (it wants AVX-512 or AMX)")
    passages, _ = await _vectors("all-MiniLM-L6-v2", "bf16", TEXTS)
    assert (passages * references["minilm"]).sum(axis=1).min() > 0.999


@settings(max_examples=40, deadline=None)
@example(np.full((1, 1), np.finfo(np.float32).tiny))
@given(
    weight=arrays(np.float32, st.tuples(st.integers(1, 5), st.sampled_from([1, 7, 128, 256])), elements=_WEIGHTS),
)
def test_int8_weights_are_the_nearest_steps_of_their_group(weight: Float32) -> None:
    compiled = ov.Core().compile_model(ov.Model([quantised(weight)], []), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled.create_infer_request().infer()[0]
    grouped = weight.reshape(len(weight), -1, GROUP if weight.shape[1] % GROUP == 0 else weight.shape[1])
    half_a_step = np.abs(grouped).max(axis=2, keepdims=True) / 127 / 2
    subnormal = 127 * np.finfo(np.float32).tiny  # a smaller weight's scale is subnormal, which the runtime takes for 0
    assert (np.abs(found.reshape(grouped.shape) - grouped) <= half_a_step * 1.001 + subnormal).all()


async def test_int8_is_near_f32(references: dict[str, Float32]) -> None:
    passages, questions = await _vectors("all-MiniLM-L6-v2", "int8", TEXTS)
    cosines = (passages * references["minilm"]).sum(axis=1)
    assert np.median(cosines) > 0.998
    assert cosines.min() > 0.99  # texts of a token or none, in which no error evens out another
    expected = references["minilm"][[TEXTS.index(query) for query in QUERIES]]
    assert (questions * expected).sum(axis=1).min() > AGREES


async def test_int8_passages_are_the_same_alone_and_in_a_batch() -> None:
    embedder = OpenVinoEmbedder.load(ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder"), precision="int8")
    together = await embedder.embed_passages([Passage(text) for text in PROBES])
    for text, found in zip(PROBES, together, strict=True):
        (alone,) = await embedder.embed_passages([Passage(text)])
        assert found.vector @ alone.vector > 0.9999  # the runtime adds up in another order, in bf16 where it has it
    await embedder.close()


async def test_a_model_that_int8_would_change_is_not_computed_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    monkeypatch.setattr("models.openvino.AGREES", 0.99999)  # as far as this model is from it, others are from AGREES
    monkeypatch.setattr("models.openvino.is_native", lambda: True)
    with pytest.raises(UnsupportedModelError, match=r"in int8 is too far .* cosine 0\.99.*'auto', 'bf16' or 'f32'"):
        OpenVinoEmbedder.load(folder, precision="int8")
    embedder = OpenVinoEmbedder.load(folder)
    assert embedder.info.precision == choose_precision("auto", ov.Core())
    assert "too far from itself in f32" in caplog.text
    await embedder.close()


def test_bf16_is_refused_where_the_cpu_has_none() -> None:
    core = ov.Core()
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert choose_precision("bf16", core) == "bf16"
    else:
        assert choose_precision("auto", core) == "f32"
        with pytest.raises(UnsupportedModelError, match="'bf16' is not supported by this CPU"):
            choose_precision("bf16", core)
    assert choose_precision("f32", core) == "f32"


def test_the_shipped_model_says_what_it_is() -> None:
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder").path
    config = read_bert_config(folder)
    assert (config.hidden_size, config.layers, config.heads, config.max_tokens) == (384, 6, 12, 512)
    settings = read_embedding_config(folder, config)
    assert (settings.pooling, settings.max_tokens, settings.query_prefix) == ("mean", 256, "")


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("config.json", {"model_type": "mpnet"}, "model_type='mpnet'.*supported: 'bert', 'roberta'"),
        ("config.json", {"hidden_act": "silu"}, "hidden_act='silu'.*supported: 'gelu'"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("config.json", {"is_decoder": True}, "is_decoder=True"),
        ("config.json", {"num_attention_heads": 5}, "num_attention_heads=5"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pooling_mode='max'.*supported: 'mean', 'cls'"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, r"pooling_mode='mean\+max'"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt=False"),
    ],
)
def test_what_the_graph_cannot_compute_is_refused_by_name(
    file: str, change: dict[str, object], named: str, tmp_path: Path
) -> None:
    folder = _changed(tmp_path, file, change)
    with pytest.raises(UnsupportedModelError, match=named):
        OpenVinoEmbedder.load(ModelStore(None).resolve(folder, "embedder"))


def test_a_module_that_is_not_built_is_refused_by_name(tmp_path: Path) -> None:
    folder = _changed(tmp_path, "config.json", {})
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModelError, match=r"'Dense'.*supported: 'Transformer', 'Pooling', 'Normalize'"):
        read_embedding_config(folder, read_bert_config(folder))


def test_three_labels_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(CROSS_ENCODERS[0], tmp_path / "three")
    _edit(folder / "config.json", {"id2label": {"0": "a", "1": "b", "2": "c"}})
    with pytest.raises(UnsupportedModelError, match="has 3 labels; supported: 1"):
        OpenVinoCrossEncoder.load(ModelStore(None).resolve(folder, "cross-encoder"))


def test_broken_folders_are_named(tmp_path: Path) -> None:
    folder = _changed(tmp_path, "config.json", {"num_hidden_layers": 3})
    with pytest.raises(ModelCorruptError, match=r"no tensor 'encoder\.layer\.2\."):
        OpenVinoEmbedder.load(ModelStore(None).resolve(folder, "embedder"))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelCorruptError, match=r"no tokenizer\.json"):
        OpenVinoEmbedder.load(ModelStore(None).resolve(folder, "embedder"))
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header     ")
    with pytest.raises(ModelCorruptError, match="no safetensors file"):
        read_weights(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match=r"has no model\.safetensors"):
        read_weights(folder)


def test_bfloat16_weights_are_read(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    data = (np.array([1.5, -2.0, 0.15625], np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    np.testing.assert_array_equal(read_weights(tmp_path)["x"], np.array([1.5, -2.0, 0.15625], np.float32))


def test_every_error_of_the_runtime_becomes_ours() -> None:
    raised = [RuntimeError("busy"), *(kind("x") for kind in _ov_errors()), ValueError("shape")]
    for error in raised:
        with pytest.raises(ModelUnavailableError, match="'m' failed in OpenVINO"), map_errors("m"):
            raise error
    with pytest.raises(InputTooLongError), map_errors("m"):
        raise InputTooLongError("ours pass through")


def _ov_errors() -> list[type[Exception]]:
    found = [one for one in vars(ov.exceptions).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert found
    return found


def _changed(tmp_path: Path, file: str, change: dict[str, object]) -> Path:
    folder = write_checkpoint(EMBEDDERS[0], tmp_path / "changed")
    _edit(folder / file, change)
    return folder


def _edit(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
