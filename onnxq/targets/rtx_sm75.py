"""TensorRT-RTX for compute capability 7.5: no tensor-core int8 convolutions, no 4-bit weights."""

from onnxq.targets._tensorrt import rtx
from onnxq.targets.base import No

_INSTEAD = "Deploy in fp16 on this GPU, or ask for rtx-sm86 or newer"

TARGET = rtx(
    75,
    "GeForce RTX 20, GTX 16, T4",
    int8=No("TensorRT-RTX dequantizes int8 at run time there instead of running in int8", _INSTEAD),
    int4=No("TensorRT-RTX cannot compile INT4 weights there", _INSTEAD),
)
