"""Embedder and cross-encoder by torch: the OpenVINO models' numbers, any architecture, refusals, shared batches."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from eval.checkpoints import SPECIMENS, Specimen, write_checkpoint
from models.base import Candidate, Passage, UnsupportedModelError
from models.openvino import OpenVinoCrossEncoder, OpenVinoEmbedder
from models.store import ModelStore
from models.torch import TorchEmbedder
from models.torch_cross_encoder import TorchCrossEncoder
from models.torch_device import choose_device, choose_precision

TEXTS = ["How often must the pump be serviced?", "White matter cells.", "", "the pump 日本 is serviced " * 9, "year"]
EMBEDDERS = [one for one in SPECIMENS if not one.labels]
CROSS_ENCODERS = [one for one in SPECIMENS if one.labels and one.pooler]
# small shapes of architectures that models/bert.py cannot build, one of each kind of pooling
SHAPES = {
    "distilbert": (transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64), "mean"),
    "mpnet": (
        transformers.MPNetConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
        "max",
    ),
    "modernbert": (
        transformers.ModernBertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=0
        ),
        "cls",
    ),
    "qwen3": (
        transformers.Qwen3Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            head_dim=8,
            pad_token_id=0,
        ),
        "lasttoken",
    ),
}


async def test_vectors_bits_and_fingerprint_are_those_of_openvino() -> None:
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    ours, theirs = TorchEmbedder.load(folder, precision="f32"), OpenVinoEmbedder.load(folder, precision="f32")
    assert ours.info == theirs.info
    passages = [Passage(text) for text in TEXTS]
    for one, other in zip(await ours.embed_passages(passages), await theirs.embed_passages(passages), strict=True):
        assert float(one.vector @ other.vector) > 0.99999
        assert one.token_bits is not None
        assert other.token_bits is not None
        assert np.unpackbits(one.token_bits ^ other.token_bits).mean() < 2e-3
    for mine, yours in zip(await ours.embed_queries(TEXTS), await theirs.embed_queries(TEXTS), strict=True):
        assert float(mine.vector @ yours.vector) > 0.99999
        np.testing.assert_allclose(mine.token_vectors, yours.token_vectors, atol=1e-4)
    await asyncio.gather(ours.close(), theirs.close())


@pytest.mark.parametrize("specimen", CROSS_ENCODERS, ids=lambda one: one.name)
async def test_scores_are_those_of_openvino(specimen: Specimen, tmp_path: Path) -> None:
    """Weights are random: what is shown is the arithmetic, not what a trained cross-encoder is worth."""
    folder = ModelStore(None).resolve(write_checkpoint(specimen, tmp_path / specimen.name), "cross-encoder")
    ours, theirs = TorchCrossEncoder.load(folder, precision="f32"), OpenVinoCrossEncoder.load(folder, precision="f32")
    assert ours.info == theirs.info
    candidates = [Candidate(text) for text in TEXTS]
    expected = await theirs.rerank("how often must the pump be serviced", None, candidates)
    found = await ours.rerank("how often must the pump be serviced", None, candidates)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    await asyncio.gather(ours.close(), theirs.close())


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    (specimen,) = (one for one in SPECIMENS if one.labels and not one.pooler)
    folder = ModelStore(None).resolve(write_checkpoint(specimen, tmp_path / specimen.name), "cross-encoder")
    with pytest.raises(UnsupportedModelError, match=r"lacks bert\.pooler"):
        TorchCrossEncoder.load(folder)


def written(kind: str, folder: Path) -> Path:
    """A folder as sentence-transformers saves it, of random weights, with the specimens' vocabulary."""
    torch.manual_seed(3)
    config, pooling = SHAPES[kind]
    bare = write_checkpoint(EMBEDDERS[0], folder / "bare")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(bare / "tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config.vocab_size = len(tokenizer)
    transformers.AutoModel.from_config(config).save_pretrained(folder / "hf")
    tokenizer.save_pretrained(folder / "hf")
    first = Transformer(str(folder / "hf"), max_seq_length=48)
    model = SentenceTransformer(modules=[first, Pooling(32, pooling_mode=pooling), Normalize()], device="cpu")
    model.save(str(folder / kind))
    return folder / kind


@pytest.mark.parametrize("kind", SHAPES)
async def test_any_architecture_gives_sentence_transformers_own_vectors(kind: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path)
    embedder = TorchEmbedder.load(ModelStore(None).resolve(path, "embedder"), precision="f32", batch_tokens=128)
    assert embedder.info.max_tokens == 48
    assert embedder.info.dimension == 32
    texts = [text for text in TEXTS if text]
    room = embedder.info.max_tokens - embedder.info.special_tokens
    cut = [Passage("", tokens.ids[:room]) for tokens in embedder.tokenizer.encode_batch(texts)]
    expected = SentenceTransformer(str(path), device="cpu").encode(texts)
    found = np.stack([one.vector for one in await embedder.embed_passages(cut)])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    await embedder.close()


async def test_calls_at_once_share_batches() -> None:
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    embedder = TorchEmbedder.load(folder, precision="f32")
    sizes: list[int] = []
    launch = embedder._batches._launch
    embedder._batches._launch = lambda batch: (sizes.append(len(batch)), launch(batch))[1]
    await asyncio.gather(*(embedder.embed_queries([f"how often is pump {n} serviced"]) for n in range(16)))
    assert sum(sizes) == 16
    assert len(sizes) <= 4
    await embedder.close()


def test_bf16_is_refused_where_it_is_not_native() -> None:
    device = choose_device()
    if choose_precision("auto", device) == "bf16":
        assert choose_precision("bf16", device) == "bf16"
    else:
        with pytest.raises(UnsupportedModelError, match="bf16"):
            choose_precision("bf16", device)
    assert choose_precision("f32", device) == "f32"


def test_a_folder_that_torch_cannot_load_is_refused_by_name(tmp_path: Path) -> None:
    path = write_checkpoint(EMBEDDERS[0], tmp_path / "broken")
    (path / "config.json").write_text('{"model_type": "never-heard-of", "architectures": ["NeverModel"]}')
    with pytest.raises(UnsupportedModelError, match="broken"):
        TorchEmbedder.load(ModelStore(None).resolve(path, "embedder"))
