"""TensorRT for compute capability 10.0."""

from onnxq.targets._tensorrt import trt

TARGET = trt(100, "B200, GB200")
