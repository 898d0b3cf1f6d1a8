"""Models that would become engines with wrong numbers are refused, by name."""

import pytest
from graphs import with_weights

from onnxq.engines import wrong_numbers
from onnxq.errors import EngineError

BLOCKS = "w = DequantizeLinear <axis = 0, block_size = 32> (w_q, w_s)"


def test_blocks_that_do_not_divide_their_axis():
    model = with_weights(
        "g (float[8, 48] x, int4[48, 16] w_q, float[2, 16] w_s) => (float[8, 16] y) "
        "{ [dq] w = DequantizeLinear <axis = 0, block_size = 32> (w_q, w_s) y = MatMul(x, w) }"
    )
    with pytest.raises(EngineError, match=r"'dq' has 48 codes .* block size 32"):
        wrong_numbers.refuse(model)


@pytest.mark.parametrize(("rows", "refused"), [(64, True), (32, False)])
def test_blocks_with_a_quantized_activation(rows, refused):
    model = with_weights(
        f"g (float[8, {rows}] x, int4[{rows}, 16] w_q, float[{rows // 32}, 16] w_s, float w_a, "
        "int8 w_z) => (float[8, 16] y) { xq = QuantizeLinear(x, w_a, w_z) "
        f"xd = DequantizeLinear(xq, w_a, w_z) {BLOCKS} [mm] y = MatMul(xd, w) }}"
    )
    if not refused:
        wrong_numbers.refuse(model)
        return
    with pytest.raises(EngineError, match="MatMul 'mm' has weights in blocks"):
        wrong_numbers.refuse(model)


@pytest.mark.parametrize(
    "ops",
    [
        "[q] q = QuantizeLinear(x, w_s) y = DequantizeLinear(q, w_s)",
        "[q] q = QuantizeLinear(x, w_s, w_u) y = DequantizeLinear(q, w_s, w_u)",
    ],
    ids=["no zero point", "unsigned zero point"],
)
def test_unsigned_codes(ops):
    inputs = "float[1, 32] x, float w_s, uint8 w_u"
    model = with_weights(f"g ({inputs}) => (float[1, 32] y) {{ {ops} }}")
    with pytest.raises(
        EngineError, match=r"QuantizeLinear 'q' has unsigned .* read them as signed"
    ):
        wrong_numbers.refuse(model)


def test_unsigned_codes_of_onnx_runtime_s_own_ops():
    """The builder takes them for the standard ones, and their codes for signed."""
    inputs = "float[1, 32] x, float w_s, uint8 w_u"
    ops = "[q] q = com.microsoft.QuantizeLinear(x, w_s, w_u) "
    ops += "y = com.microsoft.DequantizeLinear(q, w_s, w_u)"
    model = with_weights(f"g ({inputs}) => (float[1, 32] y) {{ {ops} }}")
    with pytest.raises(EngineError, match=r"'q' has unsigned .* read them as signed"):
        wrong_numbers.refuse(model)


def test_a_type_given_by_attribute_is_signed():
    wrong_numbers.refuse(
        with_weights(
            "g (float[1, 32] x, float w_s) => (float[1, 32] y) { "
            "q = QuantizeLinear <output_dtype = 3> (x, w_s) y = DequantizeLinear(q, w_s) }"
        )
    )
