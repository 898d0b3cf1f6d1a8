"""ONNX Runtime's CUDA execution provider."""

from onnxq.targets.base import Codebook, No, Target, WeightOnlySupport

TARGET = Target(
    name="ort-cuda",
    hardware="NVIDIA GPU, through ONNX Runtime's CUDA provider",
    backend="onnxruntime",
    provider="cuda",
    int8=No(
        "its kernels do not fuse Q/DQ, and the model runs several times slower than in fp16 "
        "(6 times on an H200 with onnxruntime-gpu 1.31)",
        "Ask for --preset int4, or for a TensorRT target",
    ),
    int4=WeightOnlySupport(
        lowering="matmul-nbits",
        table_lowering="gather-block-quantized",
        bits=(4, 8),
        zero_points=True,
        float_zero_points=(),
        block_sizes=(16, 32, 64, 128),
        whole_columns=(),
        ragged_blocks=True,
        single_blocks=True,
        shared_weights=True,
        codebooks={"nf4": Codebook("matmul-bnb4")},
        experts=No("ONNX Runtime's QMoE was not measured on CUDA"),
    ),
    fp8=No(
        "ONNX Runtime has no fp8 kernels for CUDA that Q/DQ fuses into: it would convert to float "
        "before every op",
        "Ask for --preset int4, or for fp8 on a TensorRT target of sm89 or newer",
    ),
    int16_activations=No(
        "ONNX Runtime's CUDA provider has no kernels of 16-bit integers: it would convert to float "
        "before every op",
        "Ask for --preset int4",
    ),
    int8_dynamic=No(
        "ONNX Runtime's CUDA provider has no kernels that products with scales found at run time "
        "fuse into",
        "Ask for --preset int4",
    ),
    evidence="measured with onnxruntime-gpu 1.31 on an H200",
)
