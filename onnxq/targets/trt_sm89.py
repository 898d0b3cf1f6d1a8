"""TensorRT for compute capability 8.9."""

from onnxq.targets._tensorrt import trt

TARGET = trt(89, "L4, L40, GeForce RTX 40")
