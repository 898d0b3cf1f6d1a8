"""TensorRT for compute capability 9.0."""

from onnxq.targets._tensorrt import trt

TARGET = trt(90, "H100, H200")
