"""`convert`: the codes of a quantized model in the form that another runtime reads.

    matmul-nbits        MatMulNBits and GatherBlockQuantized of ONNX Runtime
    block-dequantize    MatMul and Gather of a blockwise DequantizeLinear: TensorRT, standard ONNX

Nothing is quantized again, and no data is needed: see `onnxq.passes.forms`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import onnx_ir as ir

from onnxq import io
from onnxq.errors import ModelError, RecipeError
from onnxq.passes.forms import ToBlockDequantize, ToMatMulNBits
from onnxq.reporting import METADATA, set_producer
from onnxq.saving import save_checked

if TYPE_CHECKING:
    from onnxq.io import ModelLike

_Form: TypeAlias = type[ToBlockDequantize] | type[ToMatMulNBits]
FORMS: Mapping[str, _Form] = {
    "matmul-nbits": ToMatMulNBits,
    "block-dequantize": ToBlockDequantize,
}
_FROM = {
    "matmul-nbits": "DequantizeLinear with a block size",
    "block-dequantize": "MatMulNBits or GatherBlockQuantized",
}


@dataclass(frozen=True)
class ConvertResult:
    """A model whose codes are in another form.

    Attributes:
        model: Codes are moved when they are read: when it is saved, at the latest.
        form: "matmul-nbits" or "block-dequantize".
        nodes: How many nodes were converted.
        notes: What the form has no place for, or stores in another way, in words.
    """

    model: ir.Model
    form: str
    nodes: int
    notes: tuple[str, ...]

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        external_data: bool = False,
        shard_size: int | str | None = None,
    ) -> None:
        """Write the model, checked beforehand: see `onnxq.saving.save_checked`.

        Args:
            path: The ONNX file. It appears whole or not at all.
            external_data: Put the weights in `path` + ".data" even if they are small.
            shard_size: Put them in several such files of at most so many bytes: see `onnxq.save`.

        Raises:
            OutputError: The file cannot be written.
            ModelError: The result is not valid.
        """
        save_checked(self.model, path, external_data=external_data, shard_size=shard_size)


def convert(model: ModelLike, *, to: str) -> ConvertResult:
    """Bring the codes of a quantized model into another form, as they are.

    Args:
        model: A path, an `onnx_ir.Model` or an `onnx.ModelProto`, made by onnxq or another tool. It
            is not modified.
        to: "matmul-nbits" or "block-dequantize".

    Raises:
        ModelError: The model has no codes in the other form, or some that the form asked for
            cannot hold.
        RecipeError: There is no such form.
    """
    if to not in FORMS:
        near = difflib.get_close_matches(to, FORMS, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise RecipeError(f"There is no form '{to}'.", f"{hint}Known: {', '.join(FORMS)}.")
    own = io.load(model)
    form = FORMS[to]()
    count = form.edit(own)
    if not count:
        raise ModelError(
            f"The model has no {_FROM[to]}: nothing can be converted to {to}.",
            "Quantize it first, or check that it is not in this form already.",
        )
    own.metadata_props[f"{METADATA}.form"] = to
    set_producer(own)
    return ConvertResult(own, to, count, tuple(form.notes))
