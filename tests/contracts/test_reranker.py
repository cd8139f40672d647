"""What every Reranker promises, on every implementation, and what late interaction computes, worked by hand."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from eval.checkpoints import SPECIMENS, write_checkpoint
from models.base import Candidate, Embedder, ModelUnavailableError, Passage, QueryEmbedding, Reranker
from models.fake import FakeEmbedder, FakeReranker
from models.late_interaction import LateInteractionReranker, max_sim
from models.openvino import OpenVinoCrossEncoder, OpenVinoEmbedder
from models.store import ModelStore

QUERY = "How often must the pump be serviced?"
TORCH = ("torch-one-label", "torch-roberta-one-label") if find_spec("torch") else ()
PASSAGES = (
    "White matter cells are cut.",
    "The pump must be serviced every year.",
    "",
    "A year is how often it is. " * 12,
)


@pytest.fixture(scope="module", params=["one-label", "two-labels", "late-interaction", "fake", *TORCH])
def reranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    reranker = _load(request.param, tmp_path_factory.mktemp("models"))
    yield reranker
    asyncio.run(reranker.close())


def _load(which: str, scratch: Path) -> Reranker:
    if which == "late-interaction":
        return LateInteractionReranker(FakeEmbedder().info.fingerprint)
    if which == "fake":
        return FakeReranker()
    (specimen,) = (one for one in SPECIMENS if one.name == which.removeprefix("torch-"))
    folder = ModelStore(None).resolve(write_checkpoint(specimen, scratch / which), "cross-encoder")
    if which.startswith("torch"):
        from models.torch_cross_encoder import TorchCrossEncoder

        return TorchCrossEncoder.load(folder, precision="f32", batch_tokens=128)
    return OpenVinoCrossEncoder.load(folder, precision="f32", batch_tokens=128)


async def _embedded(embedder: Embedder) -> tuple[QueryEmbedding, list[Candidate]]:
    (query,) = await embedder.embed_queries([QUERY])
    found = await embedder.embed_passages([Passage(text) for text in PASSAGES])
    return query, [Candidate(text, one.token_bits) for text, one in zip(PASSAGES, found, strict=True)]


async def test_batch_equals_singles_in_any_order(reranker: Reranker) -> None:
    query, candidates = await _embedded(FakeEmbedder())
    together = await reranker.rerank(QUERY, query, candidates)
    assert together.dtype == np.float32
    assert together.shape == (len(candidates),)
    backwards = await reranker.rerank(QUERY, query, candidates[::-1])
    np.testing.assert_allclose(backwards[::-1], together, atol=1e-5)
    for candidate, score in zip(candidates, together, strict=True):
        np.testing.assert_allclose(await reranker.rerank(QUERY, query, [candidate]), [score], atol=1e-5)


async def test_no_candidates_no_scores(reranker: Reranker) -> None:
    query, _ = await _embedded(FakeEmbedder())
    assert (await reranker.rerank(QUERY, query, [])).shape == (0,)


async def test_calls_at_once_do_not_mix(reranker: Reranker) -> None:
    query, candidates = await _embedded(FakeEmbedder())
    expected = await reranker.rerank(QUERY, query, candidates)
    for scores in await asyncio.gather(*(reranker.rerank(QUERY, query, candidates) for _ in range(8))):
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("which", ["one-label", "two-labels", *TORCH])
async def test_a_question_longer_than_the_model_takes_leaves_room_for_the_passage(which: str, tmp_path: Path) -> None:
    reranker = _load(which, tmp_path)
    pump, cells = PASSAGES[1], PASSAGES[0]
    scores = await reranker.rerank(QUERY * 200, None, [Candidate(pump), Candidate(cells), Candidate(pump * 200)])
    await reranker.close()
    assert len(set(scores.tolist())) == 3


@pytest.mark.parametrize("which", ["one-label", "late-interaction", "fake", *TORCH])
async def test_closed_reranker_refuses(which: str, tmp_path: Path) -> None:
    reranker = _load(which, tmp_path)
    query, candidates = await _embedded(FakeEmbedder())
    await reranker.close()
    with pytest.raises(ModelUnavailableError, match="closed"):
        await reranker.rerank(QUERY, query, candidates)


async def test_the_fakes_put_shared_words_first() -> None:
    query, candidates = await _embedded(FakeEmbedder())
    late = await LateInteractionReranker("fake").rerank(QUERY, query, candidates)
    assert late.argmax() == (await FakeReranker().rerank(QUERY, None, candidates)).argmax() == 1


async def test_late_interaction_on_the_shipped_model_puts_the_answer_first() -> None:
    folder = ModelStore(None).resolve("all-MiniLM-L6-v2", "embedder")
    embedder = await asyncio.to_thread(OpenVinoEmbedder.load, folder)
    query, candidates = await _embedded(embedder)
    scores = await LateInteractionReranker(embedder.info.fingerprint).rerank(QUERY, query, candidates)
    await embedder.close()
    assert scores.argmax() == 1
    assert (np.abs(scores) <= 1).all()


def test_max_sim_by_hand() -> None:
    question = np.zeros((2, 8), np.float32)
    question[0, 0] = question[1, 1] = 1  # two axes
    both = np.packbits(np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]], np.uint8), axis=1)
    first = np.packbits(np.array([[1, 0, 1, 1, 1, 1, 1, 1]], np.uint8), axis=1)
    neither = np.packbits(np.zeros((3, 8), np.uint8), axis=1)
    empty = np.zeros((0, 1), np.uint8)
    # a ±1 vector of 8 components has length √8, so its cosine to an axis is ±1/√8 = ±0.35355
    scores = max_sim(question, [both, empty, first, neither])
    np.testing.assert_allclose(scores, [0.35355, -1, 0.0, -0.35355], atol=1e-5)
    assert max_sim(question[:0], [both]).tolist() == [-1]


def test_max_sim_equals_the_plain_formula_over_many_blocks() -> None:
    random = np.random.default_rng(7)
    question = random.standard_normal((9, 64)).astype(np.float32)
    question /= np.linalg.norm(question, axis=1, keepdims=True)
    passages = [random.integers(0, 256, (n, 8), dtype=np.uint8) for n in (1, 700, 300, 900, 2, 1500, 40)]
    signs = [np.unpackbits(one, axis=1).astype(np.float32) * 2 - 1 for one in passages]
    expected = [(question @ one.T).max(axis=1).mean() / 8 for one in signs]
    np.testing.assert_allclose(max_sim(question, passages), expected, atol=1e-5)


async def test_late_interaction_says_which_token_vectors_are_missing() -> None:
    query, candidates = await _embedded(FakeEmbedder())
    reranker = LateInteractionReranker("fake")
    with pytest.raises(ModelUnavailableError, match="1 of 2 candidates have no token vectors"):
        await reranker.rerank(QUERY, query, [candidates[0], Candidate("words alone")])
    with pytest.raises(ModelUnavailableError, match="question has no token vectors"):
        await reranker.rerank(QUERY, None, candidates)
