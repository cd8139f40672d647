"""The small language model, loaded once for all the tests that a process runs (it takes seconds)."""

from functools import cache
from pathlib import Path

from models.genai import GenAiGenerator
from models.store import ModelStore


def weights() -> Path:
    return ModelStore(None).resolve("SmolLM2-135M-Instruct", "generator").path


@cache
def language_model() -> GenAiGenerator:
    return GenAiGenerator.load(weights(), name="smol", fingerprint="f")
