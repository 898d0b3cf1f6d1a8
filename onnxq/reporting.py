"""What `quantize` did, written down: the report, and the metadata in the model itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

import onnx_ir as ir

import onnxq
from onnxq.accuracy import Measured
from onnxq.calib.store import CalibStore
from onnxq.latency import Latency
from onnxq.minimum_runtime import MinimumRuntime
from onnxq.passes.plan import CANDIDATES, PlannedOp, QuantPlan
from onnxq.passes.residuals import Residual
from onnxq.recipe import Recipe
from onnxq.report import Decision, Report

if TYPE_CHECKING:
    from onnxq.io import ModelLike

# Nodes named after the op that they stand for.
_REPLACED = ("GatherBlockQuantized", "MatMulNBits", "MatMulBnb4", "MatMulInteger")
METADATA = "onnxq"  # the key of what onnxq writes into a model's and its nodes' metadata


def make_report(
    model: ModelLike,
    plan: QuantPlan,
    store: CalibStore | None,
    measured: Measured,
    before: int,
    after: int,
    latency: Latency | None = None,
    expected: Mapping[str, float] | None = None,
    needs: MinimumRuntime | None = None,
) -> Report:
    """The report of a quantization.

    Args:
        model: As the user gave it.
        plan: What was done.
        store: Where the ranges come from.
        measured: The accuracy of the ops.
        before: Bytes of the weights before.
        after: Bytes of the weights after.
        latency: Of both models, if it was measured.
        expected: The SQNR of the ops that were not measured themselves, in dB.
        needs: The oldest ONNX Runtime that runs the result, if it is for that.
    """
    decisions = [_decision(op, plan, store, measured) for op in plan.ops]
    for decision in decisions:
        if expected is not None and decision.node in expected:
            decision.numbers["expected_sqnr_db"] = _json_number(expected[decision.node])
    decisions += [_sum_decision(residual, store) for residual in plan.residuals]
    decisions += [
        Decision(k.node, k.op_type, "float", k.reason, _numbers(k.node, measured))
        for k in plan.kept
    ]
    return Report(
        onnxq_version=onnxq.__version__,
        model=str(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__,
        target=plan.target.name,
        recipe=plan.recipe.model_dump(mode="json"),
        calibration=None if store is None else _calibration(store, measured),
        decisions=decisions,
        weight_bytes={"before": before, "after": after},
        output_sqnr_db=_json_number(measured.parts[0].sqnr if measured.parts else None),
        outputs={part.name: _json_number(part.sqnr) for part in measured.parts},
        measured_on=measured.samples,
        runs_on=plan.target.runs_on,
        needs={} if needs is None else needs.to_json(),
        rotation=plan.rotation,
        warnings=_warnings(plan, store, measured, latency),
        latency_ms=_latency_numbers(latency),
    )


def _warnings(
    plan: QuantPlan, store: CalibStore | None, measured: Measured, latency: Latency | None
) -> list[str]:
    """What the user should know before relying on the model."""
    notes = []
    if plan.recipe.is_static and (warning := plan.target.static(plan.recipe.preset).warning):
        notes.append(warning)
    if plan.recipe.is_static and store is not None and not measured.sqnr:
        notes.append(
            "The ops were not measured, because statistics were given without data: an op that "
            f"{plan.recipe.preset} harms went unnoticed. Give data too, or compare the model with "
            "its original."
        )
    wanted = plan.recipe.recovery
    if wanted is not None and measured.parts and measured.parts[0].sqnr < wanted.min_sqnr:
        worst = measured.parts[0]
        notes.append(
            f"Of {worst.name} {worst.sqnr:.1f} dB of signal are left above the noise, measured on "
            f"{measured.samples}; {wanted.min_sqnr:.1f} dB are asked for. Judge the model by its "
            "task; if it is not good enough, allow more: --max-float-ops, --max-float-weights."
        )
    if latency is not None and latency.speedup < 1:
        notes.append(
            f"Quantized, the model runs at {latency.speedup:.2f} of float's speed on this CPU "
            f"({latency.quantized_ms:.2f} ms instead of {latency.float_ms:.2f} ms, medians on "
            f"{latency.samples}). Where speed is what counts, stay in float on this CPU."
        )
    if store is not None and store.is_random:
        notes.append(
            "Calibrated on random data: the accuracy of this model means nothing. Use it to try "
            "out a build, and calibrate on real data before you deploy."
        )
    return notes + _codebook_warnings(plan)


def _codebook_warnings(plan: QuantPlan) -> list[str]:
    if plan.recipe.preset != "int4":
        return []
    codebooks = plan.target.weight_only().codebooks
    used = {op.weight.format for op in plan.ops}
    return [
        codebooks[name].warning
        for name in sorted(used & codebooks.keys())
        if codebooks[name].warning
    ]


def _calibration(store: CalibStore, measured: Measured) -> dict[str, Any]:
    clipping = {"clips": measured.clipping} if measured.clipping else {}
    return store.summary() | clipping


def _latency_numbers(latency: Latency | None) -> dict[str, float | str] | None:
    if latency is None:
        return None
    return {
        "float": _four_digits(latency.float_ms),
        "quantized": _four_digits(latency.quantized_ms),
        "speedup": _four_digits(latency.speedup),
        "on": latency.samples,
    }


def _four_digits(number: float) -> float:
    return float(f"{number:.4g}")


def _decision(
    op: PlannedOp, plan: QuantPlan, store: CalibStore | None, measured: Measured
) -> Decision:
    numbers = {"weight": str(op.weight), **_numbers(op.node, measured)}
    if op.activation is not None:
        numbers["input"] = str(op.activation)
    if op.activation is not None and store is not None:
        source = plan.inputs[op.node]
        numbers["input_scale"] = float(store.params(source, op.activation).scale)
        numbers["range"] = store.explain(source, op.activation)
    return Decision(
        op.node,
        op.op_type,
        op.precision,
        f"{op.scheme} for {plan.target.name}, {op.algorithm}",
        numbers,
    )


def _sum_decision(residual: Residual, store: CalibStore | None) -> Decision:
    numbers: dict[str, float | int | str] = {"input": str(residual.activation)}
    if store is not None:
        numbers["input_scale"] = float(store.params(residual.value, residual.activation).scale)
    return Decision(
        residual.node,
        "Add",
        residual.precision,
        f"reads the codes of '{residual.value}' that the ops beside it read, and no floats",
        numbers,
    )


def _numbers(node: str, measured: Measured) -> dict[str, float | int | str]:
    found = {
        "sqnr_db": _json_number(measured.sqnr.get(node)),
        "equalized_alpha": measured.alphas.get(node),
        "bias": "corrected" if node in measured.corrected else None,
    }
    return {name: number for name, number in found.items() if number is not None}


@overload
def _json_number(found: float) -> float | str: ...
@overload
def _json_number(found: None) -> None: ...
def _json_number(found: float | None) -> float | str | None:
    if found is None or math.isfinite(found):
        return None if found is None else round(found, 2)
    return str(found)  # JSON has no infinity


def set_producer(model: ir.Model) -> None:
    """Write who made the file, without which some readers refuse it, and who made its source."""
    if model.producer_name and model.producer_name != METADATA:
        source = f"{model.producer_name} {model.producer_version or ''}".strip()
        model.metadata_props[f"{METADATA}.source_producer"] = source
    model.producer_name, model.producer_version = METADATA, onnxq.__version__


def write_metadata(model: ir.Model, report: Report) -> None:
    """Write into the model what `onnxq inspect` tells of it."""
    set_producer(model)
    model.metadata_props[f"{METADATA}.version"] = report.onnxq_version
    model.metadata_props[f"{METADATA}.target"] = report.target
    if report.runs_on:
        model.metadata_props[f"{METADATA}.runs_on"] = report.runs_on
    if report.needs:
        model.metadata_props[f"{METADATA}.needs_onnxruntime"] = report.needs["onnxruntime"]
    # A field that is empty unless it is given says nothing when it is empty.
    asked = {
        field: value
        for field, value in report.recipe.items()
        if value is not None or Recipe.model_fields[field].default is not None
    }
    model.metadata_props[f"{METADATA}.recipe"] = json.dumps(asked, separators=(",", ":"))
    decisions = {decision.node: decision for decision in report.decisions}
    for node in model.graph.all_nodes():
        name = node.name or ""
        if node.op_type in _REPLACED:
            name = name.removesuffix(f"_{node.op_type}")
        decision = decisions.get(name)
        if decision is None or (decision.action == "float" and decision.op_type not in CANDIDATES):
            continue
        why = f": {decision.reason}" if decision.action == "float" else ""
        node.metadata_props[METADATA] = f"{decision.action}{why}"
