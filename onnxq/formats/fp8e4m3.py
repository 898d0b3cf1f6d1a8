"""8-bit floats of 4 exponent and 3 mantissa bits, without infinities (E4M3FN, OCP FP8)."""

import onnx_ir as ir

from onnxq.formats.base import FloatFormat

FORMAT = FloatFormat("fp8e4m3", bits=8, largest=448, dtype=ir.DataType.FLOAT8E4M3FN, opset=19)
