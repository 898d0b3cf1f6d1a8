"""Signed 8-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("int8", bits=8, signed=True, dtype=ir.DataType.INT8, opset=10)
