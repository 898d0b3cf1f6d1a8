"""Signed 7-bit integers in bytes: times unsigned bytes, two of them add up within 16 bits.

See `onnxq.cpu`.
"""

import onnx_ir as ir

from onnxq.formats.base import IntegerFormat

FORMAT = IntegerFormat("int7", bits=7, signed=True, dtype=ir.DataType.INT8, opset=10)
