"""What a file says of itself: the precision of its ops, or of an engine's, and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from onnxq import io, targets
from onnxq.minimum_runtime import minimum_runtime
from onnxq.onnxfile import stored_bytes
from onnxq.reporting import METADATA
from onnxq.targets import DynamicSupport, No, StaticSupport, Target

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What is quantized to what in an ONNX model, or in an engine that onnxq built.

    Returns:
        For a model: "target", "preset", "needs" (the oldest ONNX Runtime, and why), "runs_on" (the
        CPUs, in words), "file_bytes", "weight_bytes", "weights" (bytes by data type) and "ops", a
        list of {"op_type", "precision", "reason", "count"}. For an engine: its manifest.

    Raises:
        ModelError: The file is not a model.
        EngineError: The engine has no manifest, or is not the one that the manifest is about.
    """
    path = Path(path)
    if path.suffix != ".onnx" and path.with_name(f"{path.name}.json").is_file():
        from onnxq import engines  # noqa: PLC0415

        return engines.describe(path)
    model = io.load(path)
    ops = Counter(
        (node.op_type, *_precision(node.metadata_props.get(METADATA)))
        for node in model.graph.all_nodes()
        if node.op_type not in _QUANTIZERS
    )
    weights: Counter[str] = Counter()
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            weights[value.const_value.dtype.name.lower()] += value.const_value.nbytes
    target = model.metadata_props.get(f"{METADATA}.target", "not quantized by onnxq")
    if (form := model.metadata_props.get(f"{METADATA}.form")) is not None:
        target += f", converted to {form}"
    recipe = json.loads(model.metadata_props.get(f"{METADATA}.recipe", "{}"))
    return {
        "path": str(path),
        "target": target,
        "preset": recipe.get("preset", "none"),
        "needs": minimum_runtime(model).to_json(),
        "runs_on": model.metadata_props.get(f"{METADATA}.runs_on", ""),
        "file_bytes": path.stat().st_size,
        "weight_bytes": stored_bytes(model),
        "weights": dict(weights.most_common()),
        "ops": [
            {"op_type": op_type, "precision": precision, "reason": reason, "count": count}
            for (op_type, precision, reason), count in sorted(ops.items())
        ],
    }


def targets_table() -> list[dict[str, str]]:
    """Every target with what it supports, one row each."""
    return [_row(target) for target in targets.all_targets()]


def _precision(metadata: str | None) -> tuple[str, str]:
    if metadata is None:
        return "float", "no weights to multiply by"
    precision, _, reason = metadata.partition(": ")
    return precision, reason


def _row(target: Target) -> dict[str, str]:
    return {
        "target": target.name,
        "hardware": target.hardware,
        "int8": _static(target.int8),
        "kept float in int8": _kept_float(target.int8),
        "fp8": _static(target.fp8),
        "kept float in fp8": _kept_float(target.fp8),
        "int16-activations": _static(target.int16_activations),
        "int8-dynamic": _dynamic(target.int8_dynamic),
        "int4": _int4(target),
        "evidence": target.evidence,
    }


def _static(support: StaticSupport | No) -> str:
    if isinstance(support, No):
        return "no"
    return ", ".join(kind for kind, supported in support.ops.items() if supported)


def _kept_float(support: StaticSupport | No) -> str:
    if isinstance(support, No):
        return f"everything: {support.reason}"
    return ", ".join(kind for kind, supported in support.ops.items() if not supported)


def _dynamic(support: DynamicSupport | No) -> str:
    if isinstance(support, No):
        return f"no: {support.reason}"
    return ", ".join(op for op, form in support.lowerings.items() if not isinstance(form, No))


def _int4(target: Target) -> str:
    if isinstance(target.int4, No):
        return f"no: {target.int4.reason}"
    sizes = "/".join(map(str, target.int4.block_sizes))
    zero_points = "" if target.int4.zero_points else ", symmetric only"
    return f"{target.int4.lowering}, block {sizes}{zero_points}"
