"""Writing a result: weight by weight, and checked before it gets its name."""

from __future__ import annotations

import os

import onnx_ir as ir

from onnxq import io
from onnxq.progress import progress
from onnxq.verify import check_model, verify


def save_checked(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool = False,
    shard_size: int | str | None = None,
    memory_limit: int | str | None = None,
) -> None:
    """Write a model, checked by `onnx.checker` and loaded by ONNX Runtime beforehand.

    With activations in bfloat16 it is checked only: ONNX Runtime has no such kernels for the CPU.

    Args:
        model: What its weights are made of is computed now.
        path: The ONNX file. It appears whole or not at all.
        external_data: Put the weights in `path` + ".data" even if they are small.
        shard_size: Put them in several such files of at most so many bytes: see `onnxq.save`.
        memory_limit: How much of the weights may be computed ahead: likewise.

    Raises:
        OutputError: The file cannot be written.
        ModelError: A weight holds NaN, or the result is not valid.
    """
    check = check_model if _has_bfloat16(model) else verify
    with progress("Writing weights", len(model.graph.initializers)) as advance:
        io.save(
            model,
            path,
            external_data=external_data,
            shard_size=shard_size,
            memory_limit=memory_limit,
            check=check,
            on_weight=advance,
        )


def _has_bfloat16(model: ir.Model) -> bool:
    values = (value for node in model.graph for value in node.outputs)
    return any(value.dtype == ir.DataType.BFLOAT16 for value in values)
