"""TensorRT for compute capability 8.6."""

from onnxq.targets._tensorrt import trt

TARGET = trt(86, "A10, A40, GeForce RTX 30")
