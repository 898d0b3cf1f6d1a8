"""The same codes in another form: `MatMulNBits` and blockwise `DequantizeLinear`, both ways.

No weight is quantized again: codes, scales and zero points are the same numbers in another layout,
each moved when it is written.
"""

from onnxq.passes.forms.to_block_dequantize import ToBlockDequantize
from onnxq.passes.forms.to_matmul_nbits import ToMatMulNBits

__all__ = ["ToBlockDequantize", "ToMatMulNBits"]
