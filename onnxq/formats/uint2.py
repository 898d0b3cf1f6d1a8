"""Unsigned 2-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("uint2", bits=2, signed=False, dtype=ir.DataType.UINT2, opset=25)
