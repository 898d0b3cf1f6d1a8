"""Packing: bit for bit what ml_dtypes and ONNX hold, whichever way the codes lie."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxruntime.capi._pybind_state import quantize_matmul_4bits

from onnxq.passes.weights import rtn
from onnxq.passes.weights._packing import pack_rows, unpack_rows
from onnxq.types import PerBlock, QuantSpec

TYPES = {2: ml_dtypes.uint2, 4: ml_dtypes.uint4, 8: np.uint8}


@pytest.mark.parametrize("bits", [2, 4, 8])
@given(data=st.data())
def test_rows_are_packed_as_onnx_packs_them(bits, data):
    codes = data.draw(
        hnp.arrays(
            np.uint8,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
            elements=st.integers(0, (1 << bits) - 1),
        )
    )
    per = 8 // bits
    row_bytes = -(-codes.shape[1] // per) + data.draw(st.integers(0, 3))
    padded = np.full((codes.shape[0], row_bytes * per), 1 << (bits - 1), np.uint8)
    padded[:, : codes.shape[1]] = codes
    expected = onnx.numpy_helper.from_array(padded.astype(TYPES[bits])).raw_data
    for turned in (False, True):
        source = codes if turned else codes.T
        packed = pack_rows(source, turned, bits, 0, 1 << (bits - 1), row_bytes)
        assert packed.tobytes() == expected
        found = unpack_rows(packed, turned, bits, 3, codes.shape[1])
        np.testing.assert_array_equal(found, source + np.uint8(3))


def test_signed_codes_are_shifted():
    codes = np.array([[-8, -1], [0, 7]], np.int8).view(np.uint8)
    assert pack_rows(codes, True, 4, 8, 0, 1).tolist() == [[0x70], [0xF8]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rows", "size"), [(256, 32), (200, 64), (72, 16)])
def test_what_onnx_runtime_packs(symmetric, rows, size):
    """Its symmetric scale is signed: the same as ours where the largest weight is negative."""
    generator, columns, blocks = np.random.default_rng(0), 48, -(-rows // size)
    weight = generator.uniform(-1, 0.85, (rows, columns)).astype(np.float32)
    weight[::size] = -1 - generator.random((blocks, columns)) / 10
    codes = np.zeros((columns, blocks, size // 2), np.uint8)
    scales = np.zeros(columns * blocks, np.float32)
    zero_points = np.zeros((columns, (blocks + 1) // 2), np.uint8)
    quantize_matmul_4bits(
        codes, weight, scales, zero_points.reshape(-1), size, columns, rows, symmetric
    )
    spec = QuantSpec("int4" if symmetric else "uint4", PerBlock(0, size), symmetric)
    quantized = rtn.quantize(weight, spec)
    packed = pack_rows(
        quantized.codes.view(np.uint8), False, 4, 8 if symmetric else 0, 8, blocks * size // 2
    )
    used = rows // 2  # bytes of a row; what pads the last block is multiplied by nothing
    np.testing.assert_array_equal(packed[:, :used], codes.reshape(columns, -1)[:, :used])
    np.testing.assert_allclose(quantized.params.scale.T.reshape(-1), scales, rtol=3e-7)
    if not symmetric:
        found = pack_rows(quantized.params.zero_point, False, 4, 0, 0, (blocks + 1) // 2)
        whole = blocks // 2
        np.testing.assert_array_equal(found[:, :whole], zero_points[:, :whole])
