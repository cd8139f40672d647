"""Linear layers in int8: weights quantised once, here; activations by the runtime, as it computes.

A weight keeps a float scale for each output and each GROUP inputs, an activation one for each token and each GROUP
inputs (the runtime's dynamic quantisation), so that what is large in one place costs no precision in another. Ranges
fixed beforehand, as post-training quantisation sets them, broke these embeddings (cosine 0.81).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
from openvino import opset15 as op

from models import cpu
from models.base import Float32, Int32

GROUP = 128  # 64 costs bulk a twelfth of its speed for 0.0004 of cosine, 384 loses 0.0013: docs/decisions.md
QUESTION_GROUP = 64  # of activations; a question of few tokens takes as long, and has fewer to even out an error
AGREES = 0.997  # least cosine to f32 at which it is trusted: all-MiniLM-L6-v2 has 0.9988, fixed ranges gave 0.81
PROBES = (
    "How often must the pump in the north hall be serviced?",
    "The Kestrel pump is serviced every 6 months, its seals every 18; the log is kept for 10 years (§ 4.2, form K-17).",
    "Invoices of 2019 above 12,500.00 EUR need two signatures: the head of purchasing's and one of the board's. " * 3,
    "Die Übergabe wird mit dem Außenlager protokolliert; Abweichungen sind binnen drei Tagen zu melden.",
    "def overlap(left, right):\n    return len(set(left) & set(right)) / len(set(left) | set(right))",
    "expression of macrophage colony-stimulating factor decreased after treatment (p < 0.001, n = 48) in vitro",
)
_LARGEST = np.float32(127)


def quantised(weight: Float32) -> ov.Node:
    """(outputs, inputs) float32 → a node of that shape: int8 times its scales, which the runtime multiplies as int8.

    Symmetric, to the nearest. Inputs that GROUP does not divide make one group.
    """
    outputs, inputs = weight.shape
    group = GROUP if inputs % GROUP == 0 else inputs
    grouped = weight.reshape(outputs, inputs // group, group)
    scales = np.abs(grouped).max(axis=2, keepdims=True) / _LARGEST
    scales[scales == 0] = 1
    whole = np.rint(grouped / scales).astype(np.int8)
    product = op.multiply(op.convert(op.constant(whole), "f32"), op.constant(scales))
    return op.reshape(product, op.constant(np.array(weight.shape, np.int32)), False)


def compiled_with(group: int) -> dict[str, int | str]:
    """What tells the runtime to quantise activations, a scale for so many inputs: at most GROUP."""
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}


def agreement(core: ov.Core, exact: ov.Model, whole: ov.Model, inputs: Sequence[Int32]) -> float:
    """The least cosine of the vectors, each graph's first output, that the two make of the same inputs."""

    def vectors_by(model: ov.Model, settings: Mapping[str, int | str]) -> Float32:
        found: Float32 = core.compile_model(model, "CPU", dict(settings)).create_infer_request().infer(list(inputs))[0]
        return found

    with ThreadPoolExecutor(2) as threads:
        vectors = list(
            threads.map(vectors_by, (exact, whole), ({"INFERENCE_PRECISION_HINT": "f32"}, compiled_with(GROUP)))
        )
    cosines = (vectors[0] * vectors[1]).sum(axis=1) / np.prod([np.linalg.norm(one, axis=1) for one in vectors], axis=0)
    return float(cosines.min())


def is_native() -> bool:
    """Whether int8 is this CPU's fastest way to multiply: it has AVX512_VNNI, and no AMX, which takes bf16.

    On other systems than Linux the CPU does not say, so: no.
    """
    flags = cpu.flags()
    return "avx512_vnni" in flags and "amx_bf16" not in flags
