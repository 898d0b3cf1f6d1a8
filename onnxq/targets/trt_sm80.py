"""TensorRT for compute capability 8.0."""

from onnxq.targets._tensorrt import trt

TARGET = trt(80, "A100, A30")
