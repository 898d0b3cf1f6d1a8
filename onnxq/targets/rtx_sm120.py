"""TensorRT-RTX for compute capability 12.0."""

from onnxq.targets._tensorrt import rtx

TARGET = rtx(120, "GeForce RTX 50, RTX PRO Blackwell")
