"""all-MiniLM-L6-v2 as ONNX, from its safetensors: a BERT encoder, written the way exporters do.

Weights stay [out, in] and reach MatMul through a Transpose. Inputs input_ids, attention_mask and
token_type_ids, int64 [batch, sequence]; output last_hidden_state, float32 [batch, sequence, 384].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tape import Tape, named, tensor

import onnxq

_OPSET = 18
_MASKED = np.float32(-1e9)


def make(source: Path, target: Path) -> None:
    """Write the model whose folder (config.json, model.safetensors) is `source` to `target`."""
    config = json.loads((source / "config.json").read_text())
    onnxq.save(_Bert(config, load_file(source / "model.safetensors")).model(), target)


class _Bert:
    def __init__(self, config: dict[str, Any], weights: dict[str, NDArray[Any]]) -> None:
        self._config = config
        self._weights = weights
        self._tape = Tape()
        self._op = self._tape.op
        self._constant = self._tape.integers

    def model(self) -> ir.Model:
        inputs = [
            tensor(name, ir.DataType.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        output = named(
            self._encode(*inputs),
            "last_hidden_state",
            ir.DataType.FLOAT,
            ["batch", "sequence", self._config["hidden_size"]],
        )
        return self._tape.model(inputs, [output], name="minilm", opsets={"": _OPSET}, ir_version=8)

    def _encode(self, ids: ir.Value, mask: ir.Value, types: ir.Value) -> ir.Value:
        words = self._op("Gather", self._weight("embeddings.word_embeddings.weight"), ids)
        kinds = self._op("Gather", self._weight("embeddings.token_type_embeddings.weight"), types)
        length = self._op("Shape", ids, start=1, end=2)
        places = self._op(
            "Slice",
            self._weight("embeddings.position_embeddings.weight"),
            self._constant("zero", [0]),
            length,
            self._constant("axis_0", [0]),
        )
        hidden = self._op("Add", self._op("Add", words, kinds), places)
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        # [batch, 1, 1, sequence]: 0 where attended, very negative where not.
        axes = self._constant("axes_1_2", [1, 2])
        kept = self._op("Cast", self._op("Unsqueeze", mask, axes), to=int(ir.DataType.FLOAT))
        masked = self._op(
            "Mul", self._op("Sub", self._float("one", 1), kept), self._float("masked", _MASKED)
        )
        for layer in range(self._config["num_hidden_layers"]):
            hidden = self._layer(hidden, masked, f"encoder.layer.{layer}")
        return hidden

    def _layer(self, hidden: ir.Value, masked: ir.Value, name: str) -> ir.Value:
        heads = self._config["num_attention_heads"]
        size = self._config["hidden_size"] // heads
        split = self._constant("split", [0, 0, heads, size])

        def project(what: str, perm: list[int]) -> ir.Value:
            projected = self._linear(hidden, f"{name}.attention.self.{what}")
            return self._op("Transpose", self._op("Reshape", projected, split), perm=perm)

        query = project("query", [0, 2, 1, 3])
        key = project("key", [0, 2, 3, 1])
        value = project("value", [0, 2, 1, 3])
        scores = self._op(
            "Mul", self._op("MatMul", query, key), self._float("scale", 1 / np.sqrt(size))
        )
        weights = self._op("Softmax", self._op("Add", scores, masked), axis=-1)
        mixed = self._op("Transpose", self._op("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = self._op("Reshape", mixed, self._constant("join", [0, 0, heads * size]))
        attended = self._linear(joined, f"{name}.attention.output.dense")
        hidden = self._norm(self._op("Add", attended, hidden), f"{name}.attention.output.LayerNorm")
        wide = self._gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        narrow = self._linear(wide, f"{name}.output.dense")
        return self._norm(self._op("Add", narrow, hidden), f"{name}.output.LayerNorm")

    def _linear(self, x: ir.Value, name: str) -> ir.Value:
        weight = self._op("Transpose", self._weight(f"{name}.weight"), perm=[1, 0])
        product = self._op("MatMul", x, weight, name=f"{name}.MatMul")
        return self._op("Add", product, self._weight(f"{name}.bias"))

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        epsilon = self._config["layer_norm_eps"]
        return self._op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def _gelu(self, x: ir.Value) -> ir.Value:
        erf = self._op("Erf", self._op("Mul", x, self._float("sqrt_half", np.sqrt(0.5))))
        scaled = self._op("Mul", x, self._op("Add", erf, self._float("one", 1)))
        return self._op("Mul", scaled, self._float("half", 0.5))

    def _weight(self, name: str) -> ir.Value:
        return self._tape.constant(name, self._weights[name])

    def _float(self, name: str, number: float | np.floating[Any]) -> ir.Value:
        return self._tape.constant(name, np.array(number, np.float32))
