"""The grids of formats, and packing that is bit-exact against ml_dtypes."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq import formats, registry
from onnxq.errors import RecipeError

GRIDS = {
    "int2": (-2, 1, 0),
    "uint2": (0, 3, 2),
    "int4": (-8, 7, 0),
    "uint4": (0, 15, 8),
    "int7": (-64, 63, 0),
    "int8": (-128, 127, 0),
    "uint8": (0, 255, 128),
    "int16": (-32768, 32767, 0),
    "uint16": (0, 65535, 32768),
}


def stored(name):
    return "int8" if name == "int7" else name


def test_every_format_is_tested():
    assert {*GRIDS, "fp8e4m3", "nf4"} == set(registry.names("onnxq.formats"))


@pytest.mark.parametrize("name", GRIDS)
def test_the_grid(name):
    found = formats.get(name)
    assert (found.qmin, found.qmax, found.middle) == GRIDS[name]
    assert found.name == name
    assert found.dtype == ir.DataType[stored(name).upper()]
    assert found.short == f"int{found.dtype.bitwidth}"
    assert found.carrier.itemsize == max(found.bits // 8, 1)
    assert np.iinfo(found.carrier).min <= found.qmin < found.qmax <= np.iinfo(found.carrier).max


@pytest.mark.parametrize("name", GRIDS)
@given(data=st.data())
def test_a_tensor_holds_the_codes_bit_for_bit(name, data):
    found = formats.get(name)
    codes = np.array(
        data.draw(st.lists(st.integers(found.qmin, found.qmax), min_size=1, max_size=9)),
        found.carrier,
    )
    proto = ir.to_proto(found.tensor(codes, name="w"))
    expected = codes.astype(ir.DataType[stored(name).upper()].numpy())
    assert proto.raw_data == onnx.numpy_helper.from_array(expected).raw_data
    assert len(proto.raw_data) == -(-codes.size * found.dtype.bitwidth // 8)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(proto).astype(codes.dtype), codes)


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=9))
def test_integers_nearest_to_a_value(values):
    scaled = np.array(values, np.float32)
    nearest = formats.get("int8").nearest(scaled)
    inside = np.clip(scaled, -128, 127)
    assert (np.abs(nearest - inside) <= 0.5).all()
    np.testing.assert_array_equal(nearest, np.rint(nearest))


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=9))
def test_fp8_nearest_to_a_value(values):
    """Three bits of mantissa: off by a sixteenth, or by half of the smallest step below 2^-6."""
    scaled = np.array(values, np.float32)
    found = formats.get("fp8e4m3")
    nearest = found.nearest(scaled)
    inside = np.clip(scaled, -448, 448)
    assert (np.abs(nearest - inside) <= np.maximum(np.abs(inside) / 16, 2.0**-10)).all()
    codes = nearest.astype(found.carrier)
    np.testing.assert_array_equal(codes.astype(np.float32), nearest)
    assert ir.to_proto(found.tensor(codes)).raw_data == codes.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
def test_fp8_nearest_is_what_a_cast_makes(values):
    """Ties too: between any two codes, and their middles."""
    found = formats.get("fp8e4m3")
    every = np.arange(256, dtype=np.uint8).view(found.carrier).astype(np.float32)
    grid = np.sort(every[np.isfinite(every)])
    middles = (grid[1:] + grid[:-1]) / 2
    beside = np.nextafter(middles, np.float32(np.inf))
    scaled = np.concatenate([np.array(values, np.float32), grid, middles, beside])
    cast = np.clip(scaled, -448, 448).astype(found.carrier).astype(np.float32)
    np.testing.assert_array_equal(found.nearest(scaled), cast)
    np.testing.assert_array_equal(found.nearest(scaled[::2]), cast[::2])
    assert found.nearest(scaled[0]) == cast[0]


def test_fp8_in_brief():
    found = formats.get("fp8e4m3")
    assert (found.qmin, found.qmax, found.middle) == (-448, 448, 0)
    assert (found.short, found.bits, found.opset) == ("fp8", 8, 19)
    assert found.dtype == ir.DataType.FLOAT8E4M3FN
    assert float(np.finfo(np.float32).max) > found.qmax == ml_dtypes.finfo(found.carrier).max


def test_an_unknown_format():
    with pytest.raises(RecipeError, match=r"no format 'int44'\. Did you mean 'int4'"):
        formats.get("int44")


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=9))
def test_nf4_nearest_to_a_value(values):
    scaled = np.array(values, np.float32)
    found = formats.get("nf4")
    levels = found.values(np.arange(16))
    assert levels[found.middle] == 0
    assert (levels[found.qmin], levels[found.qmax]) == (-1, 1)
    codes = found.nearest(scaled).astype(found.carrier)
    off, least = np.abs(found.values(codes) - scaled), np.abs(levels[:, None] - scaled).min(0)
    np.testing.assert_allclose(off, least, atol=1e-7)
    proto = ir.to_proto(found.tensor(codes))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(proto).astype(np.uint8), codes)


@pytest.mark.parametrize("code", range(16))
def test_nf4_codes_are_nearest_to_what_they_stand_for(code):
    found = formats.get("nf4")
    assert found.nearest(found.values(np.array([code]))) == code
