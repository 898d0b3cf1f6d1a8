"""Bring any export into the one form that planning expects; the numbers stay what they are."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.passes.prepare.constant_inputs import ConstantInputs
from onnxq.passes.prepare.fold_affine import FoldAffine
from onnxq.passes.prepare.fold_constants import FoldConstants
from onnxq.passes.prepare.fold_if import FoldIf
from onnxq.passes.prepare.fuse_gemm import FuseGemm
from onnxq.passes.prepare.fuse_hard_swish import FuseHardSwish
from onnxq.passes.prepare.inline import Inline
from onnxq.passes.prepare.lower_einsum import LowerEinsum
from onnxq.passes.prepare.lower_opset import LowerOpset
from onnxq.passes.prepare.name_everything import NameEverything
from onnxq.passes.prepare.raise_opset import RaiseOpset
from onnxq.passes.prepare.remove_identity import RemoveIdentity
from onnxq.passes.prepare.separate_dims import SeparateDims
from onnxq.passes.prepare.store_once import StoreOnce
from onnxq.passes.prepare.true_shapes import TrueShapes
from onnxq.passes.prepare.unstack import Unstack

__all__ = ["prepare"]


def prepare(model: ir.Model, opset: int = 13, *, writes_qdq: bool = False) -> list[str]:
    """Edit `model` in place so that planning finds what it looks for.

    Functions are inlined, initializers are no inputs, the opset is raised to at least `opset` or
    lowered to what runtimes know, shapes that cannot be so are dropped, constants become
    initializers, what can be computed beforehand is, weights cut out of a stack are weights of
    their own, HardSwish is one op, an Einsum by a weight is a MatMul, products of matrices take in
    their biases, BatchNormalization and other affine maps per channel go into the op before, a head
    with a copy of a table reads the table, symbolic dimensions that only look equal are told apart,
    and every node and value has a unique name.

    Args:
        model: As it was loaded.
        opset: The least that will do.
        writes_qdq: Whether Q/DQ ops will be added, which runtimes lack in the newest opset.

    Returns:
        What the user should know of the changes.

    Raises:
        ModelError: The opset cannot be raised or lowered, or functions do not fit the model.
    """
    constant_inputs = ConstantInputs()
    passes = (
        Inline(),
        constant_inputs,
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        LowerOpset(opset, required=writes_qdq),
        TrueShapes(),
        SeparateDims(),
        RaiseOpset(opset),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        NameEverything(),
        FoldConstants(),
        FoldIf(),
        RemoveIdentity(),
        Unstack(),
        FuseHardSwish(),
        LowerEinsum(),
        FuseGemm(),
        FoldAffine(),
        StoreOnce(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        NameEverything(),
    )
    for each in passes:
        each(model)
    return [constant_inputs.note] if constant_inputs.note else []
