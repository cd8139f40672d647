"""The deliberately worse pipelines: bf16 rounds as bf16 does, truncation truncates, and the gate tells them apart."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.bf16 import Bf16Embedder, rounded
from eval.checkpoints import SPECIMENS, write_checkpoint
from eval.evaluation import kept
from eval.worse import VARIANTS, TruncatingEmbedder
from models.base import Passage
from models.fake import FakeEmbedder
from models.openvino import OpenVinoEmbedder
from models.store import ModelStore

TEXTS = ["how often must the pump be serviced", "white matter", "cells of the year", "a pump is a pump is a pump"]


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1))
def test_rounding_keeps_eight_bits_and_changes_nothing_twice(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    kept = rounded(values)
    assert np.array_equal(rounded(kept), kept)
    assert not (kept.view(np.uint32) & 0xFFFF).any()
    normal = np.abs(values) > 1e-37
    assert (np.abs(kept - values)[normal] <= np.abs(values)[normal] * 2.0**-8).all()


def test_halves_go_to_the_even_one() -> None:
    assert rounded(np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)).tolist() == [1.0, 1 + 2**-6]


@pytest.mark.parametrize("name", ["cls-prompts", "roberta-mean"])
async def test_bf16_is_near_f32_and_not_equal_to_it(name: str, tmp_path: Path) -> None:
    specimen = next(one for one in SPECIMENS if one.name == name)
    folder = ModelStore(None).resolve(write_checkpoint(specimen, tmp_path / name), "embedder")
    plain, bf16 = OpenVinoEmbedder.load(folder, precision="f32"), Bf16Embedder.load(folder, precision="f32")
    try:
        passages = [Passage(text) for text in TEXTS]
        one, other = await plain.embed_passages(passages), await bf16.embed_passages(passages)
        for a, b in zip(one, other, strict=True):
            assert 0.999 < float(a.vector @ b.vector) / float(np.linalg.norm(b.vector)) < 1 - 1e-7
            assert np.abs(a.vector - b.vector).max() > 1e-5
    finally:
        await plain.close()
        await bf16.close()


async def test_a_truncating_embedder_reads_the_first_tokens_only() -> None:
    embedder = TruncatingEmbedder(FakeEmbedder(), kept=2)
    whole, cut = await embedder.embed_passages([Passage("pump valve flange"), Passage("pump valve")])
    assert np.array_equal(whole.vector, cut.vector)
    assert (await embedder.embed_queries(["pump valve flange"]))[0].token_count == 3
    assert math.isclose(float(np.linalg.norm(cut.vector)), 1, rel_tol=1e-5)


def test_the_gate_is_tried_on_what_is_worse_and_on_what_is_not() -> None:
    assert [variant.must_fail for variant in VARIANTS] == [True, True, True, False, False]


@pytest.mark.parametrize(("commit", "is_kept"), [("b", True), ("c", False), ("b+", False), (None, False)])
def test_a_run_is_kept_while_the_code_is_the_same(tmp_path: Path, commit: str | None, is_kept: bool) -> None:
    for before in ("b", "b+"):
        folder = kept(tmp_path, before)
        folder.mkdir()
        (folder / "run.json").write_text("{}")
    assert (kept(tmp_path, commit) / "run.json").exists() == is_kept
    assert (kept(tmp_path, "b") / "run.json").exists()
