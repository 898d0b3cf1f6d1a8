"""Whether a target can run what a recipe asks for, whatever the model is."""

from __future__ import annotations

from onnxq.errors import TargetError
from onnxq.passes.choices import BITS, CODEBOOK
from onnxq.recipe import Recipe
from onnxq.targets import No, Target, WeightOnlySupport


def check_weights(recipe: Recipe, target: Target, support: WeightOnlySupport) -> None:
    """Fail if `target` cannot run what `recipe` asks for of all weights.

    Raises:
        TargetError: It has no kernel for a width, a block size, zero points or a type.
    """
    refused = support.activation_dtypes.get(recipe.activation_dtype or "")
    if isinstance(refused, No):
        raise TargetError(
            f"Target {target.label} cannot run activations in {recipe.activation_dtype}: "
            f"{refused.reason}.",
            f"{refused.instead}.",
        )
    for weights in recipe.all_weights():
        size, bits = weights.block_size, weights.bits or BITS
        if isinstance(size, int) and size not in support.block_sizes:
            sizes = ", ".join(map(str, support.block_sizes))
            raise TargetError(
                f"Target {target.label} has no kernel for block size {size}.",
                f"Choose one of {sizes}.",
            )
        if bits == CODEBOOK and CODEBOOK not in support.codebooks:
            raise TargetError(
                f"Target {target.label} has no kernel for weights in {CODEBOOK}, a codebook of 16 "
                "floats that no DequantizeLinear reads.",
                "Choose 4 bits, or a target of ONNX Runtime.",
            )
        if isinstance(bits, int) and bits not in support.bits:
            raise TargetError(
                f"Target {target.label} has no kernel for weights of {bits} bits.",
                f"Choose {' or '.join(map(str, support.bits))}.",
            )
        if weights.symmetric is False and not support.zero_points:
            raise TargetError(
                f"Target {target.label} takes 4-bit weights without zero points only.",
                "Leave out 'symmetric: false'.",
            )
        widths = support.bits if bits == "auto" else (bits,)
        if weights.float_zero_points and not {*widths} & {*support.float_zero_points}:
            raise TargetError(
                f"Target {target.label} takes no float zero points of {bits}-bit weights.",
                "Leave out 'float_zero_points'.",
            )
        if weights.accuracy_level not in (None, *support.accuracy_levels):
            raise TargetError(
                f"Target {target.label} has no choice of what products compute in.",
                "Leave out 'accuracy_level'.",
            )
