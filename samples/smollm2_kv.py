"""SmolLM2-135M with a KV cache, in the form that the model builder of onnxruntime-genai writes.

Inputs are input_ids, int64 [batch, sequence]; attention_mask, int64 [batch, past + sequence]; and
for each layer past_key_values.N.key and .value, [batch, 3, past, 64]. Outputs are logits
[batch, sequence, 49152] and present.N.key and .value, [batch, 3, past + sequence, 64]. The first
tokens of a text come with a past of length 0; behind a past come one token at a time, or a batch of
one text.

    x' = x + o(GroupQueryAttention(qkv(norm(x)), past))       y = x' + down(silu(gate(n)) up(n))

with n = norm(x'); the rotation of queries and keys by their positions is part of the attention, and
each sum is part of the norm behind it.
(https://github.com/microsoft/onnxruntime-genai/blob/main/src/python/py/models/builders/base.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import DTypeLike, NDArray
from tape import Tape, named, tensor

import onnxq

_CONTRIB = "com.microsoft"


def make(gguf: Path, target: Path) -> None:
    """Write the model in the file `gguf` to `target`, in float32.

    Raises:
        ImportError: The extra `samples-torch` is not installed.
    """
    onnxq.save(build(*read(gguf)), target)


def build(
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[Any]],
    dtype: DTypeLike = np.float32,
    *,
    packed: bool = True,
) -> ir.Model:
    """The model of a configuration and weights of the Llama architecture with tied embeddings.

    Args:
        config: As in its config.json.
        weights: By their names in the checkpoint.
        dtype: float32 or float16, of weights, caches and logits.
        packed: Whether query, key and value are one product.
    """
    return _Llama(config, weights, np.dtype(dtype), packed=packed).model()


def read(gguf: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The configuration and the weights of the model in the file `gguf`.

    Raises:
        ImportError: The extra `samples-torch` is not installed.
    """
    import smollm2  # noqa: PLC0415

    model = smollm2.read(gguf)
    weights = {name: each.numpy() for name, each in model.state_dict().items()}
    return model.config.to_dict(), weights


class _Llama:
    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, NDArray[Any]],
        dtype: np.dtype[Any],
        *,
        packed: bool,
    ) -> None:
        self._config = config
        self._weights = weights
        self._dtype = dtype
        self._packed = packed
        self._tape = Tape()
        self._op = self._tape.op
        self._hidden = config["hidden_size"]
        self._heads = config["num_attention_heads"]
        self._kv_heads = config["num_key_value_heads"]
        self._head_size = self._hidden // self._heads

    def model(self) -> ir.Model:
        ids = tensor("input_ids", ir.DataType.INT64, ["batch_size", "sequence_length"])
        mask = tensor("attention_mask", ir.DataType.INT64, ["batch_size", "total_sequence_length"])
        layers = range(self._config["num_hidden_layers"])
        past = [self._cache(layer) for layer in layers]
        logits, present = self._decode(ids, mask, past)
        outputs = [
            named(each, f"present.{layer}.{word}", self._type, self._cache_shape("total"))
            for layer, pair in zip(layers, present, strict=True)
            for word, each in zip(("key", "value"), pair, strict=True)
        ]
        shape = ["batch_size", "sequence_length", self._config["vocab_size"]]
        return self._tape.model(
            [ids, mask, *(each for pair in past for each in pair)],
            [named(logits, "logits", self._type, shape), *outputs],
            name="main_graph",
            opsets={"": 21, _CONTRIB: 1},
            ir_version=10,
        )

    @property
    def _type(self) -> ir.DataType:
        return ir.DataType.from_numpy(self._dtype)

    def _cache(self, layer: int) -> list[ir.Value]:
        return [
            tensor(f"past_key_values.{layer}.{word}", self._type, self._cache_shape("past"))
            for word in ("key", "value")
        ]

    def _cache_shape(self, length: str) -> list[int | str]:
        return ["batch_size", self._kv_heads, f"{length}_sequence_length", self._head_size]

    def _decode(
        self, ids: ir.Value, mask: ir.Value, past: list[list[ir.Value]]
    ) -> tuple[ir.Value, list[list[ir.Value]]]:
        table = self._weight("model.embed_tokens.weight")
        total = self._op("Gather", table, ids, name="/model/embed_tokens/Gather")
        lengths = self._lengths(mask)
        present = []
        update = None
        for layer, cache in enumerate(past):
            normed, total = self._norm(total, update, f"model.layers.{layer}.input_layernorm")
            attended = self._attention(normed, cache, lengths, layer)
            node = attended.producer()
            assert node is not None
            present.append(list(node.outputs[1:]))
            update = self._linear(attended, f"model.layers.{layer}.self_attn.o_proj")
            name = f"model.layers.{layer}.post_attention_layernorm"
            normed, total = self._norm(total, update, name)
            update = self._mlp(normed, f"model.layers.{layer}.mlp")
        normed, _ = self._norm(total, update, "model.norm")
        head = self._op("Transpose", table, name="/lm_head/Transpose", perm=[1, 0])
        return self._op("MatMul", normed, head, name="/lm_head/MatMul"), present

    def _lengths(self, mask: ir.Value) -> tuple[ir.Value, ir.Value]:
        """How many keys there are: of each text, less one; and of the longest."""
        where = "/model/attn_mask_reformat/attn_mask_subgraph"
        int32 = int(ir.DataType.INT32)
        one = self._tape.integers("one", [1])
        count = self._op("ReduceSum", mask, one, name=f"{where}/ReduceSum", keepdims=0)
        count = self._op("Sub", count, one, name=f"{where}/Sub")
        shape = self._op("Shape", mask, name=f"{where}/Shape")
        index = self._tape.constant("index_1", np.array(1, np.int64))
        longest = self._op("Gather", shape, index, name=f"{where}/Gather", axis=0)
        return (
            self._op("Cast", count, name=f"{where}/Sub/Cast", to=int32),
            self._op("Cast", longest, name=f"{where}/Gather/Cast", to=int32),
        )

    def _norm(self, total: ir.Value, update: ir.Value | None, name: str) -> tuple[ir.Value, ...]:
        """The normed sum of both, and the sum."""
        scale = self._weight(f"{name}.weight")
        epsilon = self._config["rms_norm_eps"]
        where = f"/{name.replace('.', '/').replace('layers/', 'layers.')}"
        if update is None:
            normed = self._op(
                "SimplifiedLayerNormalization",
                total,
                scale,
                name=f"{where}/LayerNorm",
                axis=-1,
                epsilon=epsilon,
                stash_type=1,
            )
            return normed, total
        normed = self._op(
            "SkipSimplifiedLayerNormalization",
            total,
            update,
            scale,
            name=f"{where}/SkipLayerNorm",
            domain=_CONTRIB,
            outputs=4,
            epsilon=epsilon,
        )
        node = normed.producer()
        assert node is not None
        return normed, node.outputs[3]

    def _attention(
        self, x: ir.Value, cache: list[ir.Value], lengths: tuple[ir.Value, ir.Value], layer: int
    ) -> ir.Value:
        where = f"model.layers.{layer}.self_attn"
        words = ("q_proj", "k_proj", "v_proj")
        qkv: list[ir.Value | None]
        if self._packed:
            joined = np.concatenate([self._weights[f"{where}.{word}.weight"] for word in words])
            qkv = [self._linear(x, f"{where}.qkv_proj", joined), None, None]
        else:
            qkv = [self._linear(x, f"{where}.{word}") for word in words]
        return self._op(
            "GroupQueryAttention",
            *qkv,
            *cache,
            *lengths,
            *self._rotation(),
            name=f"/model/layers.{layer}/attn/GroupQueryAttention",
            domain=_CONTRIB,
            outputs=3,
            num_heads=self._heads,
            kv_num_heads=self._kv_heads,
            scale=self._head_size**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )

    def _rotation(self) -> list[ir.Value]:
        """Cosine and sine of the angle of each place [places, head size / 2]."""
        base = self._config["rope_parameters"]["rope_theta"]
        frequencies = base ** -(np.arange(0, self._head_size, 2) / self._head_size)
        angles = np.outer(np.arange(self._config["max_position_embeddings"]), frequencies)
        return [
            self._tape.constant("cos_cache", np.cos(angles).astype(self._dtype)),
            self._tape.constant("sin_cache", np.sin(angles).astype(self._dtype)),
        ]

    def _mlp(self, x: ir.Value, name: str) -> ir.Value:
        gate = self._linear(x, f"{name}.gate_proj")
        silu = self._op("Mul", gate, self._op("Sigmoid", gate))
        return self._linear(
            self._op("Mul", silu, self._linear(x, f"{name}.up_proj")), f"{name}.down_proj"
        )

    def _linear(self, x: ir.Value, name: str, weight: NDArray[Any] | None = None) -> ir.Value:
        """The product with a weight [out, in], which is stored [in, out]."""
        weight = self._weights[f"{name}.weight"] if weight is None else weight
        stored = np.ascontiguousarray(weight.T, self._dtype)
        where = f"/{name.replace('.', '/').replace('layers/', 'layers.').replace('self_', '')}"
        constant = self._tape.constant(f"{name}.MatMul.weight", stored)
        return self._op("MatMul", x, constant, name=f"{where}/MatMul")

    def _weight(self, name: str) -> ir.Value:
        return self._tape.constant(name, self._weights[name].astype(self._dtype))
