"""ONNX Runtime's CPU execution provider.

Conv fuses into QLinearConv when input, weight and output are quantized and the bias is int32.
MatMul and Gemm need no quantized output. But a Gemm's weight needs a zero point, and what is added
to a MatMul of three or more dimensions must not be a vector, or else the product runs in float:
ONNX Runtime makes one Gemm of MatMul and Add before it looks at Q/DQ. Activations are uint8 with a
zero point: CPUs multiply unsigned by signed bytes, and for signed by signed ones ONNX Runtime takes
detours. Measured on a Xeon with VNNI, a dense QLinearConv is 8 to 24 times faster with uint8
activations than with int8 ones, and whole models, in milliseconds, take

                 float    int8   uint8
    ppocr-rec     34.9    50.5    21.2
    yolov8n       31.4    45.6    18.5
    minilm        14.4    12.0     5.9

at the same accuracy. The price is that a CPU without VNNI needs weights of 7 bits: see `onnxq.cpu`.
"""

from onnxq.targets.base import (
    OP_KINDS,
    Codebook,
    DynamicSupport,
    No,
    StaticSupport,
    Target,
    WeightOnlySupport,
    Yes,
)
from onnxq.types import QuantSpec

# MatMulNBits of [2048, 4096] in blocks of 32, one thread, medians in ms of interleaved runs; level
# 0 is 1. Level 4 rounds activations to 8 bits in blocks, which leaves 45 dB of the product, where
# the 4-bit weights leave 22 dB. The default is 0 all the same: what is computed is then what the
# codes stand for, to float rounding, whatever the activations are.
#
#   rows             1     16    128
#   level 1       0.86   12.6   65.0
#   level 4       0.26    2.8   41.1

_NO_CONV = No(
    "ONNX Runtime's integer Conv with scales found at run time takes one scale for the whole "
    "weight, and 3 to 4 times as long as the float Conv"
)
_NO_RECURRENCE = "ONNX Runtime has no {} with weights of 8 bits, only an LSTM"

# Q/DQ on the inputs and outputs of the ops named, beside int8 of the ops with weights alone: one
# thread of an EPYC with VNNI, uint8 activations, medians in ms (3 % apart is noise), and the SQNR
# of the outputs of one sample in dB.
#
#                        ppocr-rec    ppocr-det    yolov8n      minilm       ppocr-cls
#   none                 24.2  20.6   21.1   7.7   14.3  41.2    6.0  22.5   1.91
#   Add                  25.3  12.3   22.6   8.7   14.6  38.9    6.8   3.1   1.98
#   Mul and its gates    28.1  12.2   24.9   8.5   12.6  31.9    6.5  13.8   2.16
#   Concat               23.5  20.4   20.8   7.7   14.7  37.8                1.91
#   global pooling       23.5  24.8   21.1   7.6                             2.04
#   MaxPool, Resize, ..  23.8  15.8   22.0   7.7   14.7  38.9    6.1  22.0   1.93
#   Softmax              25.1  27.8                14.8  40.2    6.6  21.7   1.88
#
# Of the products of yolov8n, those alone that lie between two quantized Convs gain 2 % of the time.
_PRODUCT = No(
    "quantizing its inputs and output makes most models slower, by up to 18 %; YOLO gets 11 % "
    "faster and loses 9 dB"
)
_NO_GAIN = No("quantizing its inputs and output gains no time")
_WITHOUT_WEIGHTS = {
    "Add": No(
        "quantizing its inputs and output makes models 2 to 13 % slower, and costs up to 19 dB"
    ),
    **dict.fromkeys(("Mul", "Sigmoid", "HardSigmoid", "HardSwish"), _PRODUCT),
    **dict.fromkeys(("Concat", "GlobalAveragePool", "MaxPool", "Resize", "Softmax"), _NO_GAIN),
}

# Light Convs (`onnxq.passes.light`) in int8, and in float beside the others in int8: one thread of
# an EPYC with VNNI, medians in ms, and the SQNR of the worst part of the outputs in dB. A
# MobileNetV2 with Relu between its Convs has no light ones; with HardSwish it has.
#
#             orientation  ppocr-cls    ppocr-det    ppocr-rec    MobileNetV2 with HardSwish, Relu
#   float     4.01         1.23         70.1         42.4         7.8   7.7
#   int8      4.65  31.6   1.85  53.7   44.9  15.5   27.2  16.3   7.5   4.0
#   light     2.90  34.8   1.29  59.1   41.5  23.0   25.0  22.1   6.4   4.0
#
# In float wherever it has at most 64 products, a Conv of yolov8n costs 12 % of its time, and a Relu
# net 45 %.
_LIGHT = No(
    "it has at most 64 products an output: the quantizing and dequantizing around it, and the "
    "function that ONNX Runtime fuses into a float Conv alone, take longer than int8 saves"
)

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
            "table": Yes(),
            "fused-qkv": Yes(),
        },
        activations=QuantSpec("uint8", symmetric=False),
        weights_without_vnni="int7",
        computes_weights=True,
        light_convs=_LIGHT,
        quantize_outputs=True,
        gathers_codes=True,
        int32_bias=True,
        gemm_zero_points=True,
        bias_rows=True,
        without_weights=_WITHOUT_WEIGHTS,
    ),
    int4=WeightOnlySupport(
        lowering="matmul-nbits",
        table_lowering="gather-block-quantized",
        bits=(2, 4, 8),
        zero_points=True,
        float_zero_points=(2, 4),
        block_sizes=(16, 32, 64, 128, 256),
        whole_columns=(4, 8),
        ragged_blocks=True,
        single_blocks=True,
        shared_weights=True,
        codebooks={
            "nf4": Codebook(
                "matmul-bnb4",
                "ONNX Runtime's CPU provider makes floats of nf4 weights in every run: measured on "
                "a weight of 2048 x 4096, a token takes 3 times as long as in float, and 6 times "
                "as long as with integer codes (--bits 4).",
            )
        },
        experts="qmoe",
        accuracy_levels=(0, 1, 4),
        activation_dtypes={
            "bf16": No(
                "ONNX Runtime has no bfloat16 kernels of Add, Mul, Sigmoid and most other ops for "
                "the CPU, and does not load the model",
                "Ask for --activation-dtype fp16, which it casts to float32 where it has no kernel",
            )
        },
    ),
    fp8=No(
        "ONNX Runtime has no fp8 kernels for the CPU: it would convert to float before every op",
        "Ask for --preset int8",
    ),
    int16_activations=StaticSupport(
        ops=dict.fromkeys(OP_KINDS, Yes()),
        activations=QuantSpec("uint16", symmetric=False),
        opset=21,
        quantize_outputs=True,
        gathers_codes=True,
        warning="ONNX Runtime has no kernels of 16-bit activations for the CPU and computes these "
        "ops in float: there the model is no faster than the float one. It shows what such "
        "activations cost in accuracy, and is for execution providers that have such kernels, "
        "as QNN's.",
    ),
    int8_dynamic=DynamicSupport(
        lowerings={
            "Conv": _NO_CONV,
            "ConvTranspose": No("ONNX Runtime has no integer ConvTranspose kernel for the CPU"),
            "Gather": "gather-dequantize",
            "Gemm": "dynamic-quantize",
            "GRU": No(_NO_RECURRENCE.format("GRU")),
            "LSTM": "dynamic-lstm",
            "MatMul": "dynamic-quantize",
            "RNN": No(_NO_RECURRENCE.format("RNN")),
        },
        activations=QuantSpec("uint8", symmetric=False),
        weights_without_vnni="int7",
    ),
    evidence="measured with onnxruntime 1.32",
)
