"""torch as an adapter sees it: which device and precision, batches in, results out, and its errors as ours."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.base import Int32, ModelError, ModelUnavailableError, Precision, UnsupportedModelError
from models.batching import pad
from models.store import ModelFolder
from models.tokenizer import CheckpointTokenizer


class Device(Protocol):
    """torch.device, as far as it is used here; torch itself is typed nowhere that has no torch."""

    type: str


def choose_device() -> Device:
    """The first GPU, else the CPU."""
    return cast(Device, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def choose_precision(wanted: Precision, device: Device) -> Literal["bf16", "f32"]:
    """bf16 if wanted or, on "auto", where the device computes in it natively. Raises UnsupportedModelError."""
    if wanted == "int8":
        raise UnsupportedModelError("precision='int8' is not supported by torch here; set 'bf16', 'f32' or 'auto'.")
    if device.type == "cuda":
        native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        found = torch.cpu.get_capabilities()
        native = bool(found.get("amx_bf16") or found.get("avx512_bf16") or found.get("bf16"))
    if wanted == "bf16" and not native:
        raise UnsupportedModelError(f"precision='bf16' is not supported by this {device.type}; set 'f32', or 'auto'.")
    return "bf16" if native and wanted != "f32" else "f32"


@contextmanager
def loading(folder: ModelFolder) -> Iterator[None]:
    """What torch, transformers and safetensors raise while they load shares no base class."""
    try:
        yield
    except ModelError:
        raise
    except Exception as exc:
        reason = " ".join(str(exc).split())[:300]
        raise UnsupportedModelError(
            f"{str(folder.path)!r} cannot be loaded by torch ({type(exc).__name__}: {reason}). It must be a folder "
            "that sentence-transformers loads without code of its own, with its weights in safetensors."
        ) from exc


def dtype_of(precision: str) -> object:
    return torch.bfloat16 if precision == "bf16" else torch.float32


class Copies:
    """Results on their way from the device: started at once, waited for later, so that the next batch computes."""

    def __init__(self, device: Device, tensors: Sequence["torch.Tensor | None"]) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._copies = [one if one is None else self._started(one) for one in tensors]
        if self._event is not None:
            self._event.record()

    def _started(self, tensor: "torch.Tensor") -> "torch.Tensor":
        if self._event is None:
            return tensor
        target = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return target.copy_(tensor, non_blocking=True)

    def wait(self) -> list[NDArray[Any] | None]:
        """The arrays, once they are here."""
        if self._event is not None:
            self._event.synchronize()
        return [None if one is None else one.numpy() for one in self._copies]


def padded(sequences: Sequence[Int32], pad_id: int, device: Device) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Ids and attention mask, (n, longest) int64, on the device."""
    ids, lengths = pad(sequences, pad_id)
    mask = np.arange(ids.shape[1])[None, :] < lengths[:, None]
    tensors = (torch.from_numpy(ids), torch.from_numpy(mask))
    if device.type == "cuda":
        tensors = (tensors[0].pin_memory(), tensors[1].pin_memory())
    first, second = (one.to(device, non_blocking=True).long() for one in tensors)
    return first, second


@contextmanager
def computing(folder: ModelFolder, device: Device) -> Iterator[None]:
    """What torch raises while it computes, as ours; memory that ran out is given back first."""
    try:
        yield
    except torch.OutOfMemoryError as exc:
        free(device)
        raise ModelUnavailableError(
            f"Model {folder.name!r} ran out of the GPU's memory: lower batch_tokens, or leave it more memory."
        ) from exc
    except RuntimeError as exc:
        raise ModelUnavailableError(
            f"Model {folder.name!r} failed in torch: {exc}. Retry; restart if it repeats."
        ) from exc


def free(device: Device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def folder_fingerprint(folder: ModelFolder, tokenizer: CheckpointTokenizer) -> str:
    """Of an architecture that only torch runs: over every file of its folder."""
    return sha256(repr((sorted(folder.manifest.items()), tokenizer.fingerprint)).encode()).hexdigest()
