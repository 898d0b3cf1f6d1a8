"""TensorRT-RTX for compute capability 8.9."""

from onnxq.targets._tensorrt import rtx

TARGET = rtx(89, "GeForce RTX 40, RTX Ada, L4, L40")
