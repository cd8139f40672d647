"""Models by name and path, verified: what is damaged is refused, what is unchanged is not read twice."""

import json
import os
import shutil
from pathlib import Path

import pytest

from eval.checkpoints import SPECIMENS, write_checkpoint
from models.base import ModelCorruptError, ModelNotFoundError, ModelUnavailableError, UnsupportedModelError
from models.store import ModelStore, detect_kind
from models.sums import Sums

CROSS_ENCODER, EMBEDDER = SPECIMENS[0], SPECIMENS[4]


def test_built_in_models_are_found_and_are_the_pinned_ones() -> None:
    store = ModelStore(None)
    embedder = store.resolve("all-MiniLM-L6-v2", "embedder", rehash=True)
    assert (embedder.path / "model.safetensors").is_file()
    generator = store.resolve("SmolLM2-135M-Instruct", "generator", rehash=True)
    assert generator.path.suffix == ".gguf"
    assert [(one.name, one.kind) for one in store.list()] == [
        ("SmolLM2-135M-Instruct", "generator"),
        ("all-MiniLM-L6-v2", "embedder"),
    ]


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'nomic'.*'all-MiniLM-L6-v2' \(embedder\).*models add"):
        ModelStore(tmp_path).resolve("nomic", "embedder")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(CROSS_ENCODER, tmp_path / "reranker")
    with pytest.raises(UnsupportedModelError, match="'cross-encoder'; 'embedder' was asked for"):
        ModelStore(None).resolve(folder, "embedder")


def test_added_by_copy_and_found_by_name(tmp_path: Path) -> None:
    source = write_checkpoint(EMBEDDER, tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"not needed")
    store = ModelStore(tmp_path / "data")
    added = store.add(source, "house-embedder")
    shutil.rmtree(source)
    found = ModelStore(tmp_path / "data").resolve("house-embedder", "embedder")
    assert found == added
    assert found.path == tmp_path / "data" / "models" / "house-embedder"
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= set(found.manifest)
    assert not (found.path / "pytorch_model.bin").exists()
    assert "house-embedder" in [one.name for one in store.list()]


def test_a_gguf_file_is_added_and_opened_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF....")
    added = ModelStore(tmp_path / "data").add(tmp_path / "tiny.gguf")
    assert (added.name, added.kind, added.path.name) == ("tiny", "generator", "tiny.gguf")
    by_path = ModelStore(None).resolve(tmp_path / "tiny.gguf", "generator")
    assert by_path.manifest == added.manifest


@pytest.mark.parametrize("name", ["../up", "", "a/b", "all-MiniLM-L6-v2", ".hidden"])
def test_a_name_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    source = write_checkpoint(EMBEDDER, tmp_path / "all-MiniLM-L6-v2")
    with pytest.raises(UnsupportedModelError, match="cannot name a new model"):
        ModelStore(tmp_path / "data").add(source, name)


def test_a_name_is_not_taken_twice_and_nothing_half_added_stays(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    source = write_checkpoint(EMBEDDER, tmp_path / "source")
    store.add(source, "one")
    with pytest.raises(UnsupportedModelError, match="'one' cannot name"):
        store.add(source, "one")
    with pytest.raises(ModelNotFoundError, match=r"neither a model folder nor a \.gguf file"):
        store.add(tmp_path / "missing", "two")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedModelError, match="no model that can be opened"):
        store.add(tmp_path / "empty", "three")
    assert sorted(one.name for one in (tmp_path / "models").iterdir()) == ["one", "verified.json"]


def test_a_damaged_file_is_named_with_both_sums(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    added = store.add(write_checkpoint(EMBEDDER, tmp_path / "source"), "model")
    weights = added.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(
        ModelCorruptError, match=r"model\.safetensors' has sha256 '[0-9a-f]{64}', and the manifest says '[0-9a-f]{64}'"
    ):
        ModelStore(tmp_path).resolve("model", "embedder")
    weights.unlink()
    with pytest.raises(ModelCorruptError, match=r"model\.safetensors' is missing"):
        store.resolve("model", "embedder")


def test_a_silently_damaged_file_is_found_by_rehashing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    added = store.add(write_checkpoint(EMBEDDER, tmp_path / "source"), "model")
    weights = added.path / "model.safetensors"
    store.resolve("model", "embedder")
    before = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    store.resolve("model", "embedder")  # the same size and time: the remembered sum is believed
    with pytest.raises(ModelCorruptError, match=r"model\.safetensors"):
        store.resolve("model", "embedder", rehash=True)


def test_a_broken_manifest_and_a_torn_memory(tmp_path: Path) -> None:
    added = ModelStore(tmp_path).add(write_checkpoint(EMBEDDER, tmp_path / "source"), "model")
    (tmp_path / "models" / "verified.json").write_text("{torn")
    assert ModelStore(tmp_path).resolve("model", "embedder") == added
    (added.path / "manifest.json").write_text("[]")
    with pytest.raises(ModelCorruptError, match="no manifest"):
        ModelStore(tmp_path).resolve("model", "embedder")


def test_a_sum_is_remembered_between_processes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    memory = tmp_path / "memory.json"
    first = Sums(memory).of(tmp_path / "file")
    assert first == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    stat = (tmp_path / "file").stat()
    (tmp_path / "file").write_bytes(b"xyz")
    os.utime(tmp_path / "file", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Sums(memory).of(tmp_path / "file") == first
    assert Sums(None).of(tmp_path / "file") != first


def test_the_hub_is_asked_only_by_name_and_its_silence_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelUnavailableError, match=r"did not give 'nobody/nothing-v1\.5'.*HF_HUB_OFFLINE"):
        ModelStore(tmp_path).add("hub:nobody/nothing-v1.5")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_language_model_as_safetensors_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(UnsupportedModelError, match=r"'LlamaForCausalLM'.*\.gguf"):
        detect_kind(tmp_path)


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_what_every_model_has_is_not_added(missing: str, tmp_path: Path) -> None:
    source = write_checkpoint(EMBEDDER, tmp_path / "source")
    (source / missing).unlink()
    with pytest.raises(UnsupportedModelError, match=f"no whole embedder: it lacks {missing[:5]}"):
        ModelStore(tmp_path / "data").add(source, "half")
    assert not (tmp_path / "data" / "models" / "half").exists()


@pytest.mark.parametrize("architectures", [[5], "BertModel", [], None, [None]])
def test_architectures_that_name_none_are_an_embedders(architectures: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
    assert detect_kind(tmp_path) == "embedder"


def test_one_broken_model_costs_the_list_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ModelStore(tmp_path)
    store.add(write_checkpoint(EMBEDDER, tmp_path / "source"), "whole")
    store.add(write_checkpoint(EMBEDDER, tmp_path / "other"), "broken")
    (tmp_path / "models" / "broken" / "manifest.json").write_text("[]")
    assert [one.name for one in store.list()] == ["SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "whole"]
    assert "broken" in caplog.text
    assert "add the model again" in caplog.text
