"""What TensorRT and TensorRT-RTX share: symmetric Q/DQ with scalar scales and float biases."""

from __future__ import annotations

from onnxq.targets.base import (
    Backend,
    No,
    StaticSupport,
    Target,
    WeightOnlySupport,
    Yes,
)
from onnxq.types import QuantSpec

_ONLY_WORK = No("it has no weights, and Q/DQ on its inputs only adds work to the engine")
_JOINED = No(
    "where an int8 op reads it, TensorRT quantizes its inputs and joins them in int8 by itself; "
    "Q/DQ on them would change no kernel, and give branches of unlike ranges one scale"
)

# What Q/DQ on a sum does, in bytes that the kernels of an engine for SM 8.9 read and write: where
# an Add reads the codes of what else only int8 ops read, so that nothing writes it in float, a
# chain of residual blocks saves 16 % and 21 %, a recognizer of captchas with 6 such sums 5 % and
# 7 % (and loses 0.9 of 31 dB), the PP-OCR angle classifier 1 %. Where a float is written all the
# same, as for the Concat behind those of YOLOv8n, 1 % is saved; a residual that has no codes yet
# is still read in float, and rounded in the kernel of the Add.
_NO_CODES = No(
    "none of its operands is there in codes alone, and Q/DQ on them only adds work to the engine"
)

INT8 = StaticSupport(
    ops={
        "conv": Yes(),
        "thin-conv": No(
            "it has fewer than 32 input or 16 output channels: TensorRT's int8 kernels pad them, "
            "and the engine grows for no speed"
        ),
        "pooled-conv": No(
            "it is small and works on one pooled pixel per channel: Q/DQ costs more than int8 saves"
        ),
        "depthwise-conv": No(
            "TensorRT pads each group of an int8 depthwise Conv to 4 channels: "
            "the engine grows up to 4 times and is no faster"
        ),
        "large-conv": Yes(),
        "conv-transpose": No(
            "TensorRT dequantizes ConvTranspose at run time instead of running it in int8"
        ),
        "gemm": Yes(),
        "matmul": Yes(),
        "table": Yes(),
        "fused-qkv": No(
            "its product is cut into query, key and value, and TensorRT moves the cuts into the "
            "weight, which it dequantizes for that"
        ),
    },
    without_weights={
        "Concat": _JOINED,
        "Add": _NO_CODES,
        **dict.fromkeys(
            ("AveragePool", "GlobalAveragePool", "LayerNormalization", "Softmax"), _ONLY_WORK
        ),
    },
    activations=QuantSpec("int8", symmetric=True),
    residuals_in_codes=True,
)

FP8 = StaticSupport(
    ops={
        **INT8.ops,
        "thin-conv": No(
            "it has fewer than 32 input or 16 output channels: Q/DQ costs more than fp8 saves"
        ),
        "pooled-conv": No(
            "it is small and works on one pooled pixel per channel: Q/DQ costs more than fp8 saves"
        ),
        "depthwise-conv": No(
            "TensorRT pads each group of an fp8 depthwise Conv to more channels: the engine grows "
            "and is no faster"
        ),
        "large-conv": No(
            "its kernel has more than 32 elements, and TensorRT runs such an fp8 Conv in float"
        ),
        "conv-transpose": No(
            "TensorRT dequantizes ConvTranspose at run time instead of running it in fp8"
        ),
    },
    without_weights={**INT8.without_weights, "Concat": _ONLY_WORK},
    activations=QuantSpec("fp8e4m3", symmetric=True),
    weights="fp8e4m3",
    opset=19,
    residuals_in_codes=True,
)

_OLDEST_FP8 = 89
_NO_FP8 = No(
    "its tensor cores have no fp8: that came with compute capability 8.9",
    "Ask for --preset int8, or for a target of sm89 or newer",
)

_NO_INT16 = No(
    "TensorRT does not import QuantizeLinear and DequantizeLinear of 16 bits",
    "Ask for --preset int8, or --preset fp8 on sm89 and newer",
)
_NO_DYNAMIC = No(
    "TensorRT does not import DynamicQuantizeLinear, and runs in float where a scale is computed "
    "at run time",
    "Ask for --preset int8, with calibration data",
)

INT4 = WeightOnlySupport(
    lowering="block-dequantize",
    table_lowering="block-dequantize",
    bits=(4,),
    zero_points=False,
    float_zero_points=(),
    block_sizes=(16, 32, 64, 128, 256),
    whole_columns=(),
    ragged_blocks=False,
    single_blocks=False,
    shared_weights=False,
    stacks=True,
    experts=No("TensorRT does not import com.microsoft.MoE: export experts as products"),
    # Measured on MiniLM and SmolLM2, with activations in float16 and bfloat16.
    wide_attention="TensorRT would fuse it with the attention before, and dequantize the weight of "
    "the product behind",
)


def rtx(
    compute_capability: int,
    hardware: str,
    *,
    int8: StaticSupport | No = INT8,
    int4: WeightOnlySupport | No = INT4,
) -> Target:
    """The target "rtx-smNN": TensorRT-RTX, compiled ahead of time on any machine."""
    evidence = "measured with engines built by TensorRT-RTX 1.7"
    return _target("rtx", "tensorrt_rtx", compute_capability, hardware, int8, int4, evidence)


def trt(compute_capability: int, hardware: str) -> Target:
    """The target "trt-smNN": TensorRT, which builds on a machine that has the GPU."""
    evidence = "TensorRT documentation, and TensorRT-RTX on the same graphs"
    return _target("trt", "tensorrt", compute_capability, hardware, INT8, INT4, evidence)


def _target(
    prefix: str,
    backend: Backend,
    compute_capability: int,
    hardware: str,
    int8: StaticSupport | No,
    int4: WeightOnlySupport | No,
    evidence: str,
) -> Target:
    return Target(
        name=f"{prefix}-sm{compute_capability}",
        hardware=hardware,
        backend=backend,
        compute_capability=compute_capability,
        int8=int8,
        int4=int4,
        fp8=FP8 if compute_capability >= _OLDEST_FP8 else _NO_FP8,
        int16_activations=_NO_INT16,
        int8_dynamic=_NO_DYNAMIC,
        evidence=evidence,
    )
