"""The embedder as a CPU with bf16 computes it, on one that has none: operands and results rounded, sums kept in f32.

What enters is a model folder, what leaves an Embedder whose every matrix product reads bfloat16 and whose every layer
hands on bfloat16, as AMX and the runtime's bf16 mode do. Slower than f32: it is for judging quality alone.
"""

import numpy as np
import openvino as ov
from openvino import opset15 as op

from models.base import Float32
from models.openvino import OpenVinoEmbedder

# Nodes whose results the runtime stores in bf16; MVN and the softmax inside attention compute in f32 inside.
_STORED = {"MatMul", "Add", "Gelu", "MVN", "Multiply", "ScaledDotProductAttention", "Gather"}
_SPLIT = np.float32(2**16 + 1)  # 24 - 8 bits of the significand go


class Bf16Embedder(OpenVinoEmbedder):
    """Implements Embedder. Use `load` with precision="f32", which it runs in."""

    def _graph(self, int8: bool = False) -> ov.Model:
        model = super()._graph(int8)
        for node in model.get_ordered_ops():
            if node.get_type_name() == "Constant":
                _round_constant(node)
            elif node.get_type_name() in _STORED and node.output(0).get_element_type() == ov.Type.f32:
                _round_output(node)
        model.validate_nodes_and_infer_types()
        return model


def rounded(values: Float32) -> Float32:
    """The nearest bfloat16 of each, as float32; halves to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    kept = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (kept & np.uint32(0xFFFF0000)).view(np.float32)


def _round_constant(node: ov.Node) -> None:
    """A weight's values, in a constant of its own: the model's file stays as it is."""
    values = node.data
    if values.dtype != np.float32 or values.ndim == 0:
        return
    fresh = op.constant(rounded(values).reshape(values.shape))
    for target in node.output(0).get_target_inputs():
        target.replace_source_output(fresh.output(0))


def _round_output(node: ov.Node) -> None:
    """Veltkamp's splitting (Dekker 1971): with c = (2^16 + 1) x, c - (c - x) is x to 8 bits of significand."""
    targets = list(node.output(0).get_target_inputs())
    scaled = op.multiply(node, op.constant(_SPLIT))
    kept = op.subtract(scaled, op.subtract(scaled, node))
    for target in targets:
        target.replace_source_output(kept.output(0))
