"""ONNX Runtime's CPU execution provider.

Conv fuses into QLinearConv when input, weight and output are quantized and the bias is int32.
MatMul and Gemm need no quantized output. Activations are int8 with a zero point: signed times
signed needs no 7-bit weights on a CPU without VNNI, as unsigned times signed does.
"""

from onnxq.targets.base import No, StaticSupport, Target, WeightOnlySupport, Yes
from onnxq.types import QuantSpec

TARGET = Target(
    name="ort-cpu",
    hardware="any CPU, through ONNX Runtime",
    backend="onnxruntime",
    provider="cpu",
    int8=StaticSupport(
        ops={
            "conv": Yes(),
            "thin-conv": Yes(),
            "pooled-conv": Yes(),
            "depthwise-conv": Yes(),
            "large-conv": Yes(),
            "conv-transpose": No("ONNX Runtime has no integer ConvTranspose kernel for the CPU"),
            "gemm": Yes(),
            "matmul": Yes(),
            "fused-qkv": Yes(),
        },
        activations=QuantSpec("int8", symmetric=False),
        quantize_outputs=True,
        int32_bias=True,
    ),
    int4=WeightOnlySupport(
        lowering="matmul-nbits",
        bits=(2, 4, 8),
        zero_points=True,
        float_zero_points=(2, 4),
        block_sizes=(16, 32, 64, 128, 256),
        whole_columns=(4, 8),
        ragged_blocks=True,
        single_blocks=True,
        shared_weights=True,
    ),
    fp8=No(
        "ONNX Runtime has no fp8 kernels for the CPU: it would convert to float before every op",
        "Ask for --preset int8",
    ),
    evidence="measured with onnxruntime 1.32",
)
