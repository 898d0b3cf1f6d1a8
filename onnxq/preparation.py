"""What comes before a plan: checks of what was asked for, and the model in the form planned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxq import io, observers, runtime
from onnxq.calib.feeds import HOW_TO_GIVE_DATA
from onnxq.cpu import has_vnni
from onnxq.errors import DataError, TargetError
from onnxq.minimum_runtime import fit_runtime, parse_release
from onnxq.onnxruntime_ops import NEWEST, Version
from onnxq.passes import weights
from onnxq.passes.lower import opset
from onnxq.passes.prepare import prepare
from onnxq.passes.prepare.products import make_products
from onnxq.recipe import Recipe
from onnxq.targets import Target
from onnxq.targets import get as get_target

if TYPE_CHECKING:
    from onnxq.io import ModelLike

_QDQ_OPSET = 13  # the first with per-channel scales
_HALF_QDQ_OPSET = 19  # the first with float16 and bfloat16 scales
NOTES = "onnxq.notes"  # in the `meta` of a prepared model: what the user should know of it
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def table_of(
    target: str | Target,
    recipe: Recipe,
    cpu_has_vnni: bool | None,
    min_runtime: str | None = None,
) -> Target:
    """What `target` can do on the CPUs and the releases of ONNX Runtime that are meant.

    Args:
        target: Itself, or its name.
        recipe: What is asked of it.
        cpu_has_vnni: Whether they have VNNI; None for what the one at hand has.
        min_runtime: The oldest release, such as "1.20"; None for the one at hand.

    Raises:
        RecipeError: There is no such release.
        TargetError: There is no such target, or it is the same for all CPUs or releases.
    """
    target = get_target(target) if isinstance(target, str) else target
    if min_runtime is not None:
        target = target.on_runtime(parse_release(min_runtime))
    elif not target.builds_engines and (release := runtime.installed_release()) is not None:
        target = _on_installed(target, release)
    if target.depends_on_vnni(recipe.preset):
        return target.on_cpu(has_vnni=has_vnni() if cpu_has_vnni is None else cpu_has_vnni)
    if cpu_has_vnni is not None:
        raise TargetError(
            f"Preset {recipe.preset} for '{target.name}' is the same for CPUs with VNNI and "
            "without.",
            "Leave out what says whether the CPU has it.",
        )
    return target


def _on_installed(target: Target, version: Version) -> Target:
    """`target`, if what was measured last is not there yet, on the release that is."""
    return target if version >= NEWEST else target.on_runtime(version)


def require_known(recipe: Recipe, target: Target) -> None:
    """Fail on a wrong algorithm, observer or preset before any work is done.

    Raises:
        RecipeError, TargetError: There is no such algorithm or observer; the target cannot run it.
    """
    for each in recipe.all_weights():
        if recipe.preset == "int4":
            weights.needs_data(each.algorithm)
        else:
            weights.get(each.algorithm)
    observers.get(recipe.activations.observer)
    _least_opset(recipe, target)  # fails if the target cannot run the preset


def require_data(recipe: Recipe, *, calibration: bool, stats: bool) -> None:
    """Fail unless what is given to go by, data or statistics, is what `recipe` goes by.

    Raises:
        DataError: It is not.
    """
    if recipe.is_static and not (calibration or stats):
        raise DataError(f"Preset {recipe.preset} needs calibration data.", HOW_TO_GIVE_DATA)
    if recipe.is_static:
        return
    used = recipe.all_weights()
    aware = [each.algorithm for each in used if weights.needs_data(each.algorithm)]
    if aware and not calibration:
        raise DataError(
            f"The weight algorithm {aware[0]} needs calibration data.", HOW_TO_GIVE_DATA
        )
    if aware and stats:
        raise DataError(
            "Preset int4 goes by data, not by statistics of ranges.", "Leave out the statistics."
        )
    if (calibration or stats) and not aware:
        how = f" with the algorithm {used[0].algorithm}" if recipe.preset == "int4" else ""
        raise DataError(f"Preset {recipe.preset}{how} needs no calibration data.", "Leave it out.")


def prepared(model: ModelLike, recipe: Recipe, target: Target) -> ir.Model:
    """A model of our own, equal to `model`, in the form that `recipe` is planned on.

    Raises:
        ModelError: There is none, or it is not valid.
        TargetError: The target cannot run what the recipe asks for.
    """
    own = io.load(model)
    _prepare(own, _least_opset(recipe, target), writes_qdq=_writes_qdq(recipe, target))
    make_products(own, recipe, target)
    if target.min_runtime is not None:
        fit_runtime(own, target.min_runtime)
    return own


def observed(model: ModelLike) -> ir.Model:
    """A model of our own, equal to `model`, in the form that statistics are taken of.

    It is the same for every preset, whatever opset that needs.

    Raises:
        ModelError: There is none, or it is not valid.
    """
    own = io.load(model)
    _prepare(own, _QDQ_OPSET, writes_qdq=True)
    return own


def _prepare(model: ir.Model, least_opset: int, *, writes_qdq: bool) -> None:
    half = any(v.dtype in _HALF for v in model.graph.initializers.values())
    least = max(least_opset, _HALF_QDQ_OPSET) if half else least_opset
    model.meta[NOTES] = prepare(model, least, writes_qdq=writes_qdq)


def _writes_qdq(recipe: Recipe, target: Target) -> bool:
    """Whether the ops QuantizeLinear or DequantizeLinear will be in the result."""
    if recipe.is_static:
        return True
    lowering = recipe.preset == "int4" and target.weight_only().lowering
    return lowering == "block-dequantize"


def _least_opset(recipe: Recipe, target: Target) -> int:
    if recipe.is_static:
        return target.static(recipe.preset).opset
    if recipe.preset == "int8-dynamic":
        return max(opset(f) for f in target.dynamic().lowerings.values() if isinstance(f, str))
    least = opset(target.weight_only().lowering)
    return max(least, _HALF_QDQ_OPSET) if recipe.activation_dtype in ("fp16", "bf16") else least
