"""TensorRT for compute capability 12.0."""

from onnxq.targets._tensorrt import trt

TARGET = trt(120, "GeForce RTX 50, RTX PRO Blackwell")
