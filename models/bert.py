"""A BERT-family checkpoint becomes an OpenVINO graph: embeddings, encoder layers, then pooling or a classifier.

Weights and shape enter (models/checkpoint.py), an `openvino.Model` leaves. Built from the operator set directly, since
exporting through another framework would bring torch along and, measured, runs a tenth slower.
BERT: Devlin et al. 2019 (arXiv:1810.04805).
"""

from typing import Literal

import numpy as np
import openvino as ov
from numpy.typing import ArrayLike, DTypeLike
from openvino import opset15 as op

from models.base import Float32, ModelCorruptError, UnsupportedModelError
from models.checkpoint import BertConfig
from models.int8 import quantised

_MASKED = np.float32(-1e9)  # added to the attention score of padding; exp() of it is 0 in float32 and bfloat16
_APPROXIMATION = {"gelu": "ERF", "gelu_new": "TANH", "gelu_pytorch_tanh": "TANH"}


def build_embedder(
    config: BertConfig, weights: dict[str, Float32], pooling: Literal["mean", "cls"], *, int8: bool = False
) -> ov.Model:
    """Inputs: ids (batch, tokens) int32, padded on the right; lengths (batch,) int32.

    Outputs: vectors (batch, hidden) float32; states (batch, tokens, hidden), the last layer's; each of unit length.
    `int8`: its linear layers in int8; compile it with what models/int8.py says.
    """
    graph = _Encoder(config, weights, int8=int8)
    states = graph.encode()
    if pooling == "cls":
        pooled = graph.first_token(states)
    else:
        mask = op.unsqueeze(op.convert(graph.mask, "f32"), _const(2))
        pooled = op.divide(
            op.reduce_sum(op.multiply(states, mask), _const(1)),
            op.reduce_sum(mask, _const(1)),
        )
    vectors = op.normalize_l2(pooled, _const([1]), 1e-12, "MAX")
    units = op.normalize_l2(states, _const([2]), 1e-12, "MAX")
    return ov.Model([vectors.output(0), units.output(0)], [graph.ids, graph.lengths], "embedder")


def build_cross_encoder(config: BertConfig, weights: dict[str, Float32]) -> ov.Model:
    """Inputs: ids, type_ids (batch, tokens) int32; lengths (batch,) int32. Output: logits (batch, labels).

    BERT's head is a tanh pooler, where the folder has one, and a linear classifier; RoBERTa's is a dense tanh layer and
    a projection.
    """
    graph = _Encoder(config, weights, with_type_ids=True)
    first = graph.first_token(graph.encode())
    if "classifier.out_proj.weight" in weights:
        first = op.tanh(graph.linear(first, "classifier.dense"))
        logits = graph.linear(first, "classifier.out_proj")
    else:
        if "pooler.dense.weight" in weights:
            first = op.tanh(graph.linear(first, "pooler.dense"))
        logits = graph.linear(first, "classifier")
    return ov.Model([logits.output(0)], [graph.ids, graph.type_ids, graph.lengths], "cross-encoder")


def _const(value: ArrayLike, dtype: DTypeLike = np.int32) -> ov.Node:
    return op.constant(np.asarray(value, dtype))


class _Encoder:
    """The graph of one checkpoint while it is being built."""

    def __init__(
        self, config: BertConfig, weights: dict[str, Float32], *, with_type_ids: bool = False, int8: bool = False
    ) -> None:
        if config.hidden_size % config.heads:
            raise UnsupportedModelError(
                f"config.json has hidden_size={config.hidden_size!r}, no multiple of its "
                f"num_attention_heads={config.heads!r}."
            )
        self._config, self._weights, self._int8 = config, weights, int8
        self.ids = op.parameter([-1, -1], np.int32, name="ids")
        self.lengths = op.parameter([-1], np.int32, name="lengths")
        self.type_ids = op.parameter([-1, -1], np.int32, name="type_ids") if with_type_ids else None
        tokens = op.gather(op.shape_of(self.ids, "i32"), _const(1), _const(0))
        self._positions = op.range(_const(0), tokens, _const(1), "i32")
        self.mask = op.less(op.unsqueeze(self._positions, _const(0)), op.unsqueeze(self.lengths, _const(1)))
        unmasked = op.convert(self.mask, "f32")
        bias = op.multiply(op.subtract(_const(1, np.float32), unmasked), _const(_MASKED, np.float32))
        self._attention_bias = op.unsqueeze(bias, _const([1, 2]))  # (batch, 1, 1, tokens)

    def encode(self) -> ov.Node:
        """The last layer's states, (batch, tokens, hidden)."""
        states = self._embed()
        for layer in range(self._config.layers):
            states = self._layer(states, f"encoder.layer.{layer}.")
        return states

    def first_token(self, states: ov.Node) -> ov.Node:
        return op.gather(states, _const(0), _const(1))

    def linear(self, x: ov.Node, name: str) -> ov.Node:
        weight = f"{name}.weight"
        multiplier = quantised(self._tensor(weight)) if self._int8 else self._weight(weight)
        return op.add(op.matmul(x, multiplier, False, True), self._weight(f"{name}.bias"))

    def _embed(self) -> ov.Node:
        offset = self._config.position_offset
        positions = self._tensor("embeddings.position_embeddings.weight")[offset:]
        types = self._tensor("embeddings.token_type_embeddings.weight")
        words = op.gather(self._weight("embeddings.word_embeddings.weight"), self.ids, _const(0))
        if self.type_ids is None:  # one text is all of type 0: its row goes into the position table
            positions = positions + types[0]
        else:
            words = op.add(words, op.gather(op.constant(types), self.type_ids, _const(0)))
        words = op.add(words, op.gather(op.constant(positions), self._positions, _const(0)))
        return self._layer_norm(words, "embeddings.LayerNorm")

    def _layer(self, x: ov.Node, name: str) -> ov.Node:
        """Post-norm: attention, add, norm; feed forward, add, norm."""
        attended = self.linear(self._attention(x, f"{name}attention.self."), f"{name}attention.output.dense")
        x = self._layer_norm(op.add(attended, x), f"{name}attention.output.LayerNorm")
        wide = self._activate(self.linear(x, f"{name}intermediate.dense"))
        return self._layer_norm(op.add(self.linear(wide, f"{name}output.dense"), x), f"{name}output.LayerNorm")

    def _attention(self, x: ov.Node, name: str) -> ov.Node:
        hidden, heads = self._config.hidden_size, self._config.heads
        split, merge, swap = _const([0, 0, heads, hidden // heads]), _const([0, 0, hidden]), _const([0, 2, 1, 3])
        query, key, value = (
            op.transpose(op.reshape(self.linear(x, name + part), split, True), swap)
            for part in ("query", "key", "value")
        )
        attended = op.scaled_dot_product_attention(query, key, value, self._attention_bias)
        return op.reshape(op.transpose(attended, swap), merge, True)

    def _activate(self, x: ov.Node) -> ov.Node:
        if self._config.activation == "relu":
            return op.relu(x)
        return op.gelu(x, _APPROXIMATION[self._config.activation])

    def _layer_norm(self, x: ov.Node, name: str) -> ov.Node:
        normal = op.mvn(x, _const([-1]), True, self._config.layer_norm_eps, "INSIDE_SQRT")
        return op.add(op.multiply(normal, self._weight(f"{name}.weight")), self._weight(f"{name}.bias"))

    def _weight(self, name: str) -> ov.Node:
        # shared with the mapped file: copying would double what the weights take while the graph is compiled
        return op.constant(self._tensor(name), shared_memory=True)

    def _tensor(self, name: str) -> Float32:
        try:
            return self._weights[name]
        except KeyError:
            raise ModelCorruptError(
                f"The checkpoint has no tensor {name!r} ({len(self._weights)} others): its config.json says "
                f"model_type={self._config.model_type!r}, layers={self._config.layers!r}. Restore the model's folder."
            ) from None
