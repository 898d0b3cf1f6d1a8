"""TensorRT-RTX for compute capability 8.6."""

from onnxq.targets._tensorrt import rtx

TARGET = rtx(86, "GeForce RTX 30, RTX A series")
