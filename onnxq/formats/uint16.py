"""Unsigned 16-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("uint16", bits=16, signed=False, dtype=ir.DataType.UINT16, opset=21)
