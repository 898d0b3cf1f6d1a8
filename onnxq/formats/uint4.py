"""Unsigned 4-bit integers."""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("uint4", bits=4, signed=False, dtype=ir.DataType.UINT4, opset=21)
