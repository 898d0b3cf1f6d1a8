"""Signed 4-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("int4", bits=4, signed=True, dtype=ir.DataType.INT4, opset=21)
