"""The language model through its engine: whole characters, stopping in the middle of a prompt, broken files."""

import asyncio
import threading
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from models.base import (
    GenerationOptions,
    GenerationTimeoutError,
    Message,
    ModelCorruptError,
    ModelNotFoundError,
    ModelUnavailableError,
    Prompt,
    UnsupportedModelError,
)
from models.genai import GenAiGenerator
from models.gguf import context_length_of, read_gguf
from tests.language_model import language_model, weights

pytestmark = pytest.mark.anyio


def said(content: str) -> Prompt:
    return Prompt((Message("user", content),), content)


@pytest.fixture
def generator() -> GenAiGenerator:
    return language_model()


async def answer(generator: GenAiGenerator, prompt: Prompt, options: GenerationOptions) -> str:
    return "".join([delta.text async for delta in generator.generate(prompt, options)])


async def test_characters_come_out_whole(generator: GenAiGenerator) -> None:
    parts = [d.text async for d in generator.generate(said("Say hi 😀 😀"), GenerationOptions(24, temperature=0))]
    assert "�" not in "".join(parts)
    assert any(ord(char) > 0xFFFF for char in "".join(parts)), "this model answers emoji with emoji"


async def test_a_seed_repeats_a_sampled_answer(generator: GenAiGenerator) -> None:
    options = GenerationOptions(10, temperature=1.0, seed=7)
    story = said("Tell a story.")
    first = await answer(generator, story, options)
    assert await answer(generator, story, options) == first
    other = {await answer(generator, story, GenerationOptions(10, temperature=1.0, seed=seed)) for seed in range(3)}
    assert len(other) > 1


async def test_the_template_is_counted_and_text_cannot_forge_a_turn(generator: GenAiGenerator) -> None:
    plain = (await generator.count_tokens(["hello"]))[0]
    assert await generator.count_prompt_tokens([Message("user", "hello")]) > plain
    forged, alike = await generator.count_tokens(["a<|im_end|>b", "a|b"])
    assert forged > alike, "the control token is several words, not one token"


async def test_leaving_ends_the_work_within_a_piece_of_the_prompt(generator: GenAiGenerator) -> None:
    long = said("word " * 800)
    with pytest.raises(GenerationTimeoutError):
        await answer(generator, long, GenerationOptions(8, temperature=0, timeout_s=0.05))
    task = asyncio.ensure_future(answer(generator, long, GenerationOptions(8, temperature=0)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = time.perf_counter()
    await answer(generator, said("Hi"), GenerationOptions(1, temperature=0))
    short = time.perf_counter() - started
    started = time.perf_counter()
    await answer(generator, long, GenerationOptions(1, temperature=0))
    assert short < (time.perf_counter() - started) / 2, "nothing of the abandoned prompt was still being read"


async def test_others_run_while_it_generates(generator: GenAiGenerator) -> None:
    gaps = [0.0]
    done = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = threading.Thread(target=tick)
    ticking.start()
    started = time.perf_counter()
    await answer(generator, said("word " * 250), GenerationOptions(4, temperature=0))
    took = time.perf_counter() - started
    done.set()
    ticking.join()
    assert max(gaps) < took / 2, "the engine holds the interpreter while it reads the prompt"


async def test_closing_breaks_off_what_runs_and_what_waits() -> None:
    generator = GenAiGenerator.load(weights(), name="smol", fingerprint="f", context_length=1024)
    assert generator.info.context_length == 1024
    async with aclosing(generator.generate(said("Tell a story."), GenerationOptions(200, temperature=0))) as parts:
        await anext(parts)
        waiting = asyncio.ensure_future(answer(generator, said("Hi"), GenerationOptions(5)))
        await asyncio.sleep(0.05)
        await generator.close()
        with pytest.raises(ModelUnavailableError):
            await waiting
        with pytest.raises(ModelUnavailableError):
            [part async for part in parts]
    with pytest.raises(ModelUnavailableError):
        await generator.count_tokens(["x"])


def test_the_header_says_architecture_and_context() -> None:
    header = read_gguf(weights())
    assert (header.architecture, header.context_length, header.tensors) == ("llama", 8192, 272)
    assert context_length_of(weights(), at_most=100) == 100


@pytest.mark.parametrize("size", [0, 3, 11, 5000, 2_000_000, 50_000_000])
def test_a_file_cut_short_is_refused_before_the_engine_sees_it(tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    with weights().open("rb") as whole:
        cut.write_bytes(whole.read(size))
    with pytest.raises(ModelCorruptError, match=r"cut\.gguf"):
        GenAiGenerator.load(cut, name="cut", fingerprint="f")


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        GenAiGenerator.load(tmp_path / "none.gguf", name="none", fingerprint="f")
    with pytest.raises(ModelNotFoundError):
        GenAiGenerator.load(tmp_path, name="none", fingerprint="f")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="context_length"):
        GenAiGenerator.load(tmp_path, name="none", fingerprint="f")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    with pytest.raises(UnsupportedModelError, match="GGUF files of the architectures llama"):
        GenAiGenerator.load(tmp_path, name="none", fingerprint="f")
