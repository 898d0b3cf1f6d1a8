"""The straight line: load, prepare, plan, calibrate, rewrite, save."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from onnxq import io, observers
from onnxq.accuracy import Measured, mend
from onnxq.budget import require_met, require_reachable, spend
from onnxq.bytesize import in_bytes
from onnxq.calib import runner
from onnxq.calib.feeds import FeedSource, Sample, open_feeds
from onnxq.calib.inputs import model_inputs
from onnxq.calib.random_feeds import random_feeds
from onnxq.calib.store import CalibStore
from onnxq.errors import DataError, RecipeError
from onnxq.expected import expected_sqnr
from onnxq.garbage import rarely_collected
from onnxq.latency import Latency, measure_latency, require_measurable
from onnxq.minimum_runtime import MinimumRuntime, fit_runtime, minimum_runtime
from onnxq.onnxfile import stored_bytes
from onnxq.outputs import unjudged
from onnxq.passes import weights
from onnxq.passes.plan import CANDIDATES, QuantPlan, make_plan
from onnxq.passes.qdq.insert import InsertQdq
from onnxq.passes.rewrite import rewrite, set_activation_type
from onnxq.passes.store_codes import StoreCodes, can_store
from onnxq.passes.transforms.fold_scales import fold_scales
from onnxq.passes.transforms.rotate import rotate as rotate_stream
from onnxq.preparation import NOTES, prepared, require_data, require_known, table_of
from onnxq.recipe import RecipeLike, resolve
from onnxq.report import Report
from onnxq.reporting import make_report, write_metadata
from onnxq.saving import save_checked
from onnxq.statistics import statistics_of
from onnxq.targets import Target
from onnxq.types import Array

if TYPE_CHECKING:
    from onnxq.calib.feeds import DataLike
    from onnxq.io import ModelLike

_STORED = "its weight is stored in int8, and becomes floats when the model is loaded"


@dataclass(frozen=True)
class QuantizeResult:
    """A quantized model and what was done to it.

    Attributes:
        model: Weights are quantized when they are read: when it is saved, at the latest.
        report: What was done to each node, and why.
    """

    model: ir.Model
    report: Report

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        external_data: bool = False,
        shard_size: int | str | None = None,
        memory_limit: int | str | None = None,
    ) -> None:
        """Write the model, checked by `onnx.checker` and loaded by ONNX Runtime beforehand.

        With activations in bfloat16 it is checked only: ONNX Runtime has no such kernels for the
        CPU.

        Args:
            path: The ONNX file. It appears whole or not at all.
            external_data: Put the weights in `path` + ".data" even if they are small.
            shard_size: Put them in several such files of at most so many bytes: see `onnxq.save`.
            memory_limit: How much of the weights may be computed ahead of what is written, in bytes
                or as text; None for one weight.

        Raises:
            OutputError: The file cannot be written.
            ModelError: A weight holds NaN, or the result is not valid.
        """
        save_checked(
            self.model,
            path,
            external_data=external_data,
            shard_size=shard_size,
            memory_limit=memory_limit,
        )


@rarely_collected()
def quantize(
    model: ModelLike,
    *,
    target: str | Target,
    preset: str | None = None,
    recipe: RecipeLike | None = None,
    calibration: DataLike | None = None,
    stats: str | os.PathLike[str] | CalibStore | None = None,
    exclude: str | Iterable[str] = (),
    bits: int | str | None = None,
    size_budget: int | str | None = None,
    bits_per_weight: float | None = None,
    head_bits: int | None = None,
    conv_as_matmul: bool = False,
    activation_dtype: str | None = None,
    rotate: bool | None = None,
    recovery: Mapping[str, float] | Literal[False] | None = None,
    provider: str = "cpu",
    memory_limit: int | str | None = None,
    cpu_has_vnni: bool | None = None,
    min_runtime: str | None = None,
    measure: bool = False,
) -> QuantizeResult:
    """Quantize `model` for `target`.

    Args:
        model: A path, an `onnx_ir.Model`, an `onnx.ModelProto` or a `torch.onnx.ONNXProgram`. It
            is not modified.
        target: What it will run on, such as "ort-cpu" or "rtx-sm89".
        preset: "int8", "fp8", "int16-activations", "int8-dynamic" or "int4".
        recipe: Changes to the preset: a `Recipe`, a mapping, or the path of a YAML or JSON file.
        calibration: Data for the presets that quantize activations, and for "int4" to go by the
            error of its outputs (`weights.algorithm: gptq`): see `onnxq.calibrate`.
        stats: Statistics made by `onnxq.calibrate` from this model: ranges are taken from them.
            With data beside them the ops are measured on it; without, an op that would be harmed
            goes unnoticed.
        exclude: Shell-style patterns of the names of nodes or weights to leave in float, or one.
        bits: For "int4": of the weights' codes, 2, 4 or 8; "nf4" for 4 bits that stand for the
            values of a codebook, in ONNX Runtime; or "auto" for those that do least damage within a
            budget, each weight its own.
        size_budget: What the file may take, in bytes or as text such as "90MB".
        bits_per_weight: The same as a mean over the weights, scales and zero points included.
        head_bits: For int4: the bits of the weights of the last product, whose result is an output
            of the model, and of an embedding that is the same matrix.
        conv_as_matmul: For int4: make a MatMul of each Conv with a kernel of size 1, which then has
            weights in blocks like any other.
        activation_dtype: For int4: what activations become, "fp16", "bf16" or "fp32". Inputs and
            outputs of the model keep their types, but for KV caches.
        rotate: For int4: whether the residual stream of a transformer is turned by an orthogonal
            matrix that its weights take in, so that no channel is huge; None for where that pays,
            with the algorithm gptq and without a budget.
        recovery: Changes to the recipe's `recovery`, the limits to what may stay in float for
            accuracy; False for nothing.
        provider: As for `calibrate`; ops are measured on the CPU.
        memory_limit: As for `calibrate`.
        cpu_has_vnni: For int8 and int8-dynamic on "ort-cpu": whether every CPU that it will run on
            adds products of 8-bit numbers in 32 bits, as those with VNNI do; None for what the CPU
            at hand does. Weights have 7 bits for those that do not.
        min_runtime: The oldest ONNX Runtime that shall run the result, such as "1.20"; None for
            the one at hand. What the result needs is in the report.
        measure: Measure the latency beside float's, for "ort-cpu" on the CPU at hand.

    Raises:
        ModelError, DataError, RecipeError, TargetError: See each; bad input of that kind.
    """
    resolved = resolve(
        preset,
        recipe,
        exclude,
        recovery,
        bits=bits,
        size_budget=size_budget,
        bits_per_weight=bits_per_weight,
        head_bits=head_bits,
        conv_as_matmul=conv_as_matmul,
        activation_dtype=activation_dtype,
        rotate=rotate,
        has_data=calibration is not None,
    )
    target = table_of(target, resolved, cpu_has_vnni, min_runtime)
    if measure:
        require_measurable(target)
    require_known(resolved, target)
    require_data(resolved, calibration=calibration is not None, stats=stats is not None)
    limit = in_bytes(memory_limit)
    if (limit or provider != "cpu") and (calibration is None or stats is not None):
        raise RecipeError(
            "A memory limit and a provider are for calibration, and nothing is calibrated.",
            "Leave them out.",
        )
    own = prepared(model, resolved, target)
    before = stored_bytes(own)
    plan = make_plan(own, resolved, target)
    _require_ops(plan)
    require_reachable(own, plan)
    store, measured, feeds = None, Measured(), None
    if resolved.is_static:
        feeds = None if calibration is None else open_feeds(calibration, own)
        if feeds is not None and stats is None:
            feeds = feeds.hold_out()
        if stats is not None:
            store = statistics_of(model, stats)
        elif feeds is not None:
            observer = observers.get(resolved.activations.observer)
            store = runner.calibrate(
                own, feeds, plan.activations(), observer, provider, memory_limit=limit
            )
        assert store is not None
        unreached = _unreached(plan, store)
        stored = _stored(plan, unreached)
        plan = plan.leave_float(unreached | {n: f"{unreached[n]}; {_STORED}" for n in stored})
        _require_ops(plan)
        if feeds is not None:
            plan, store, measured = mend(own, plan, store, feeds)
            _require_ops(plan)
        InsertQdq(plan, store.params)(own)
        StoreCodes(stored)(own)
    elif calibration is not None:
        store = _sum_moments(own, plan, open_feeds(calibration, own), provider, limit)
        plan = plan.leave_float(_unreached(plan, store))
        _require_ops(plan)
    plan, moments = fold_scales(own, *rotate_stream(own, plan, _moments(plan, store)))
    plan = spend(own, plan, moments)
    expected = expected_sqnr(plan, moments)
    plan = plan.kept_wide(rewrite(own, plan, moments))
    needs = _needs(own, target)
    latency = _latency(model, own, feeds) if measure else None
    report = make_report(
        model, plan, store, measured, before, stored_bytes(own), latency, expected, needs
    )
    report.warnings.extend([*own.meta[NOTES], *(unjudged(own) if measured.parts else [])])
    write_metadata(own, report)
    require_met(own, plan)
    return QuantizeResult(own, report)


@rarely_collected()
def plan(
    model: ModelLike,
    *,
    target: str | Target,
    preset: str | None = None,
    recipe: RecipeLike | None = None,
    exclude: str | Iterable[str] = (),
    bits: int | str | None = None,
    size_budget: int | str | None = None,
    bits_per_weight: float | None = None,
    head_bits: int | None = None,
    conv_as_matmul: bool = False,
    activation_dtype: str | None = None,
    rotate: bool | None = None,
    cpu_has_vnni: bool | None = None,
    min_runtime: str | None = None,
    has_data: bool = False,
) -> QuantPlan:
    """What `quantize` would do to `model`, before any data is read.

    Args:
        model: As for `quantize`.
        target: As for `quantize`.
        preset: As for `quantize`.
        recipe: As for `quantize`.
        exclude: As for `quantize`.
        bits: As for `quantize`; "auto" goes by the error of the weights alone.
        size_budget: As for `quantize`.
        bits_per_weight: As for `quantize`.
        head_bits: As for `quantize`.
        conv_as_matmul: As for `quantize`.
        activation_dtype: As for `quantize`.
        rotate: As for `quantize`.
        cpu_has_vnni: As for `quantize`.
        min_runtime: As for `quantize`.
        has_data: Whether `quantize` will get calibration data, which says how int4 chooses codes.

    Raises:
        ModelError, RecipeError, TargetError: Bad input of that kind.
    """
    resolved = resolve(
        preset,
        recipe,
        exclude,
        bits=bits,
        size_budget=size_budget,
        bits_per_weight=bits_per_weight,
        head_bits=head_bits,
        conv_as_matmul=conv_as_matmul,
        activation_dtype=activation_dtype,
        rotate=rotate,
        has_data=has_data,
    )
    target = table_of(target, resolved, cpu_has_vnni, min_runtime)
    require_known(resolved, target)
    own = prepared(model, resolved, target)
    rotated, _ = rotate_stream(own, make_plan(own, resolved, target), {})
    planned = spend(own, rotated, {})
    return planned.kept_wide(set_activation_type(own, planned))


def _needs(model: ir.Model, target: Target) -> MinimumRuntime | None:
    """The oldest ONNX Runtime that runs the result; None if it is for an engine.

    Raises:
        TargetError: It is newer than the one asked for.
    """
    if target.min_runtime is not None:
        fit_runtime(model, target.min_runtime)
    return None if target.builds_engines else minimum_runtime(model)


def _latency(model: ModelLike, quantized: ir.Model, feeds: FeedSource | None) -> Latency:
    given = io.load(model)
    if feeds is not None:
        return measure_latency(given, quantized, feeds.some(), "calibration samples")
    made_up = [Sample("a made-up feed", feed) for feed in random_feeds(model_inputs(given), 1)]
    return measure_latency(given, quantized, made_up, "made-up inputs")


def _sum_moments(
    model: ir.Model, plan: QuantPlan, feeds: FeedSource, provider: str, limit: int | None
) -> CalibStore:
    values = plan.second_moments()
    if not values:
        raise DataError(
            "Nothing in the model goes by data: it has tables or experts in one op only.",
            "Leave the calibration data out.",
        )
    observer = observers.get("moments", {"full": True})
    return runner.calibrate(model, feeds, values, observer, provider, memory_limit=limit)


def _moments(plan: QuantPlan, store: CalibStore | None) -> dict[str, Array]:
    """The sum of x x^T of the activations whose products go by it."""
    states = {} if store is None else store.states
    return {name: states[name]["square"] for name in plan.second_moments()}


def _require_ops(plan: QuantPlan) -> None:
    if not (plan.products if plan.recipe.is_static else plan.ops):
        raise RecipeError(
            "Nothing in the model can be quantized: " + _main_reasons(plan),
            "Change the recipe, the exclusions or the target.",
        )


def _unreached(plan: QuantPlan, store: CalibStore) -> dict[str, str]:
    """The ops of whose activations the statistics hold no value: in branches never taken."""
    reasons = {}
    for op in plan.products:
        if op.scheme != "static" and not weights.needs_data(op.algorithm):
            continue
        needed = [plan.inputs[op.node], *([op.output.name or ""] if op.output else [])]
        unseen = [name for name in needed if not store.saw(name)]
        if unseen:
            reasons[op.node] = f"no calibration sample tells the range of '{unseen[0]}'"
    return reasons


def _stored(plan: QuantPlan, unreached: Iterable[str]) -> list[str]:
    """The ops whose weights become codes though they compute in float."""
    if not plan.target.static(plan.recipe.preset).computes_weights:
        return []
    return [node for node in unreached if can_store(plan.graph_nodes[node])]


def _main_reasons(plan: QuantPlan) -> str:
    """The reasons of most of the ops that could have weights in codes."""
    reasons = Counter(kept.reason for kept in plan.kept if kept.op_type in CANDIDATES)
    return (
        "; ".join(reason for reason, _ in reasons.most_common(3)) + "."
        if reasons
        else "it has no Conv, Gemm or MatMul."
    )
