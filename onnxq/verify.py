"""Whether a written model is valid and loads: asked before it gets its final name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from onnxq import runtime
from onnxq.errors import ModelError


def check_model(path: Path) -> None:
    """Check the model at `path` with `onnx.checker`.

    Raises:
        ModelError: It is not valid.
    """
    import onnx  # noqa: PLC0415

    _declare_ops_of_onnxruntime()
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as failure:
        why = " ".join(str(failure).split())
        raise ModelError(f"'{path.name}' is not valid ONNX: {why}.") from failure


def verify(path: Path) -> None:
    """Check the model at `path` with `onnx.checker`, and load it in ONNX Runtime.

    Every form that onnxq writes is known to ONNX Runtime on the CPU, whatever the target is.

    Raises:
        ModelError: It is not valid, or does not load: a defect of onnxq, or of the input.
    """
    check_model(path)
    runtime.session(path, optimize=False)


@cache
def _declare_ops_of_onnxruntime() -> None:
    """Tell `onnx` of the op that ONNX Runtime adds to the default domain, which exporters write."""
    from onnx import defs  # noqa: PLC0415

    name = "SimplifiedLayerNormalization"
    if defs.has(name):
        return
    parameter, attribute = defs.OpSchema.FormalParameter, defs.OpSchema.Attribute
    kinds = defs.OpSchema.AttrType
    optional = defs.OpSchema.FormalParameterOption.Optional
    floats = ["tensor(float16)", "tensor(float)", "tensor(double)", "tensor(bfloat16)"]
    defs.register_schema(
        defs.OpSchema(
            name,
            domain="",
            since_version=1,
            inputs=[parameter("X", "T"), parameter("scale", "V")],
            outputs=[
                parameter("Y", "V"),
                parameter("inv_std_var", "U", param_option=optional),
            ],
            type_constraints=[(letter, floats, "") for letter in "TUV"],
            attributes=[
                attribute("axis", kinds.INT, required=False),
                attribute("epsilon", kinds.FLOAT, required=False),
                attribute("stash_type", kinds.INT, required=False),
            ],
        )
    )
