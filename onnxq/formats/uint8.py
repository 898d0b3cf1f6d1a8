"""Unsigned 8-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("uint8", bits=8, signed=False, dtype=ir.DataType.UINT8, opset=10)
