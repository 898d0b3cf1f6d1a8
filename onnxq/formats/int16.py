"""Signed 16-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("int16", bits=16, signed=True, dtype=ir.DataType.INT16, opset=21)
