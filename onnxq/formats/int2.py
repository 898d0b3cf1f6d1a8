"""Signed 2-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("int2", bits=2, signed=True, dtype=ir.DataType.INT2, opset=25)
