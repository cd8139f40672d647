"""What every Embedder promises, on every implementation: the shipped model, a specimen with prefixes, the fake."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.checkpoints import SPECIMENS, write_checkpoint
from models.base import Embedder, InputTooLongError, ModelUnavailableError, Passage, PassageEmbedding
from models.fake import FakeEmbedder, WordTokenizer
from models.openvino import OpenVinoEmbedder
from models.remote_embedder import LocalPart, RemoteEmbedder
from models.store import ModelStore
from tests.model_server import AppServer
from tests.nodes import model_node, remote_of

WORDS = ("pump", "serviced", "every", "year", "the", "of", "日本", "😀", "naïve", "cells", "2,000", "white-matter")
TORCH = ("torch", "torch-prefixed") if find_spec("torch") else ()  # in tests/live/torch.py's environment
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)  # within the smallest specimen's 64 tokens


@pytest.fixture(scope="module", params=["openvino", "prefixed", "fake", "node", *TORCH])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder | AppServer]:
    if request.param == "node":
        with model_node(tmp_path_factory.mktemp("node")) as server:
            yield server
        return
    embedder = _load(request.param, tmp_path_factory.mktemp("models"))
    yield embedder
    asyncio.run(embedder.close())


@pytest.fixture
async def embedder(loaded: Embedder | AppServer) -> AsyncIterator[Embedder]:
    """What is loaded once; a node's client, which belongs to one event loop, anew for each test."""
    if isinstance(loaded, AppServer):
        remote = await RemoteEmbedder.connect(remote_of(loaded), "fake", LocalPart(WordTokenizer(), max_tokens=256))
        yield remote
        await remote.close()
    else:
        yield loaded


def _load(which: str, scratch: Path) -> Embedder:
    store = ModelStore(None)
    if which.startswith("torch"):
        from models.torch import TorchEmbedder

        (specimen,) = (one for one in SPECIMENS if one.name == "cls-prompts")
        named = "all-MiniLM-L6-v2" if which == "torch" else write_checkpoint(specimen, scratch / which)
        return TorchEmbedder.load(store.resolve(named, "embedder"), precision="f32", batch_tokens=512)
    if which == "openvino":
        return OpenVinoEmbedder.load(store.resolve("all-MiniLM-L6-v2", "embedder"), precision="f32", batch_tokens=512)
    if which == "prefixed":
        (specimen,) = (one for one in SPECIMENS if one.name == "cls-prompts")
        folder = write_checkpoint(specimen, scratch / which)
        return OpenVinoEmbedder.load(store.resolve(folder, "embedder"), precision="f32", batch_tokens=256)
    return FakeEmbedder()


def _close(one: PassageEmbedding, other: PassageEmbedding) -> bool:
    assert one.token_bits is not None
    assert other.token_bits is not None
    assert one.token_bits.shape == other.token_bits.shape
    np.testing.assert_allclose(one.vector, other.vector, atol=2e-6)
    flipped = np.unpackbits(one.token_bits ^ other.token_bits).sum()  # a component may round to either side of 0
    return bool(flipped <= 2e-3 * one.token_bits.size * 8)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(texts, min_size=1, max_size=8))  # nothing drawn within: Hypothesis could not stop a loop's test
async def test_batch_equals_singles_in_any_order(embedder: Embedder, batch: list[str]) -> None:
    together = await embedder.embed_passages([Passage(text) for text in batch])
    for text, found in zip(batch, together, strict=True):
        (alone,) = await embedder.embed_passages([Passage(text)])
        assert _close(found, alone)


async def test_padding_changes_nothing(embedder: Embedder) -> None:
    room = embedder.info.max_tokens - embedder.info.special_tokens
    long = embedder.tokenizer.encode_batch(["pump " * room])[0].ids[:room]
    short = Passage("the pump")
    (alone,) = await embedder.embed_passages([short])
    padded = await embedder.embed_passages([short, Passage("", token_ids=long), short])
    assert _close(alone, padded[0])
    assert _close(alone, padded[2])


async def test_shapes_and_unit_length(embedder: Embedder) -> None:
    batch = ["The pump is serviced every year.", "", "日本 😀", "pump"]
    for text, found in zip(batch, await embedder.embed_passages([Passage(t) for t in batch]), strict=True):
        tokens = embedder.tokenizer.count(text) + embedder.info.special_tokens
        assert found.vector.dtype == np.float32
        assert found.vector.shape == (embedder.info.dimension,)
        assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
        assert found.token_bits is not None
        assert found.token_bits.dtype == np.uint8
        assert found.token_bits.shape == (tokens, embedder.info.dimension // 8)
    for question in await embedder.embed_queries(batch):
        assert np.linalg.norm(question.vector) == pytest.approx(1, abs=1e-5)
        assert question.token_vectors is not None
        assert question.token_vectors.shape == (question.token_count, embedder.info.dimension)
        np.testing.assert_allclose(np.linalg.norm(question.token_vectors, axis=1), 1, atol=1e-5)


async def test_nothing_in_nothing_out(embedder: Embedder) -> None:
    assert await embedder.embed_passages([]) == []
    assert await embedder.embed_queries([]) == []


async def test_token_ids_of_the_chunker_equal_the_text(embedder: Embedder) -> None:
    batch = ["The pump is serviced every year.", "日本 😀 naïve", "x"]
    tokens = embedder.tokenizer.encode_batch(batch)
    by_text = await embedder.embed_passages([Passage(text) for text in batch])
    by_ids = await embedder.embed_passages([Passage("", one.ids) for one in tokens])
    mixed = await embedder.embed_passages([Passage(batch[0]), Passage("", tokens[1].ids), Passage(batch[2])])
    for expected, first, second in zip(by_text, by_ids, mixed, strict=True):
        assert _close(expected, first)
        assert _close(expected, second)


async def test_passage_over_the_limit_is_refused_with_its_counts(embedder: Embedder) -> None:
    limit = embedder.info.max_tokens
    fits = "pump " * (limit - embedder.info.special_tokens)
    await embedder.embed_passages([Passage(fits)])
    with pytest.raises(InputTooLongError, match=rf"Passage 1 has {limit + 1} tokens.* takes {limit}\."):
        await embedder.embed_passages([Passage("pump"), Passage(fits + "pump")])


async def test_question_over_the_limit_is_cut(embedder: Embedder) -> None:
    long, longer = await embedder.embed_queries(["pump " * 600, "pump " * 600 + "year"])
    assert long.token_count == embedder.info.max_tokens
    np.testing.assert_allclose(long.vector, longer.vector, atol=1e-6)


async def test_question_of_any_length_is_the_same_alone_and_among_others(embedder: Embedder) -> None:
    questions = [("How often must pump 7 be serviced " * 8)[: 6 * n] for n in range(46)]
    for question, among in zip(questions, await embedder.embed_queries(questions), strict=True):
        (alone,) = await embedder.embed_queries([question])
        assert alone.token_count == among.token_count
        np.testing.assert_allclose(alone.vector, among.vector, atol=2e-6)
        assert alone.token_vectors is not None
        assert among.token_vectors is not None
        np.testing.assert_allclose(alone.token_vectors, among.token_vectors, atol=2e-5)


async def test_questions_during_bulk_are_all_right(embedder: Embedder) -> None:
    questions = [f"How often must pump {n} be serviced?" for n in range(12)]
    expected = await embedder.embed_queries(questions)
    passages = [Passage(f"pump {n} " + "is serviced every year " * (n % 9)) for n in range(60)]
    bulk = [asyncio.create_task(embedder.embed_passages(passages)) for _ in range(2)]
    found = await asyncio.gather(*(embedder.embed_queries([question]) for question in questions))
    for one, (other,) in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.vector, other.vector, atol=2e-6)
    first, second = await asyncio.gather(*bulk)
    assert all(_close(a, b) for a, b in zip(first, second, strict=True))


async def test_urgent_passages_are_embedded_as_others_and_before_them(embedder: Embedder) -> None:
    few = [Passage("the pump"), Passage("is serviced every year " * 9), Passage("")]
    expected = await embedder.embed_passages(few)
    bulk = asyncio.create_task(embedder.embed_passages([Passage("the pump is serviced every year " * 5)] * 1000))
    await asyncio.sleep(0)
    found = await embedder.embed_passages(few, urgent=True)
    assert embedder.info.name == "fake" or not bulk.done()
    bulk.cancel()
    await asyncio.gather(bulk, return_exceptions=True)
    assert all(_close(one, other) for one, other in zip(expected, found, strict=True))


async def test_cancelled_bulk_leaves_the_embedder_usable(embedder: Embedder) -> None:
    bulk = asyncio.create_task(embedder.embed_passages([Passage("the pump is serviced every year " * 5)] * 200))
    await asyncio.sleep(0.05)
    bulk.cancel()
    await asyncio.gather(bulk, return_exceptions=True)
    assert len(await embedder.embed_passages([Passage("the pump")])) == 1


@pytest.mark.parametrize("which", ["openvino", "fake", *TORCH])
async def test_closed_embedder_refuses(which: str, tmp_path: Path) -> None:
    embedder = _load(which, tmp_path)
    await embedder.embed_queries(["pump"])
    await embedder.close()
    with pytest.raises(ModelUnavailableError, match="closed"):
        await embedder.embed_queries(["pump"])
    with pytest.raises(ModelUnavailableError, match="closed"):
        await embedder.embed_passages([Passage("pump")])


@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_offsets_are_code_points_of_the_text(embedder: Embedder, text: str) -> None:
    (tokens,) = embedder.tokenizer.encode_batch([text])
    assert len(tokens) == embedder.tokenizer.count(text) == len(tokens.ids)
    assert tokens.offsets.shape == (len(tokens), 2)
    starts, ends = tokens.offsets[:, 0], tokens.offsets[:, 1]
    assert (starts <= ends).all()
    assert (np.diff(starts) >= 0).all()
    assert ((ends >= 0) & (ends <= len(text))).all()


async def test_tokens_are_found_where_they_stand(embedder: Embedder) -> None:
    text = "日本 😀 the pump"
    tokens = embedder.tokenizer.encode_batch([text])[0]
    words = [text[start:end] for start, end in tokens.offsets]
    assert words[-1] == "pump"
    assert "".join(words).replace(" ", "") == "日本😀thepump"
