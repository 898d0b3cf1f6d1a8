"""Block sizes: "auto" takes the fewest bytes, and what a target cannot run is said."""

import pytest

from onnxq import targets
from onnxq.passes.block_size import block_size, column_bits
from onnxq.targets import No
from onnxq.types import QuantSpec

CPU = targets.get("ort-cpu").weight_only()
RTX = targets.get("rtx-sm89").weight_only()
INT4 = QuantSpec("int4")
UINT4 = QuantSpec("uint4", symmetric=False)


@pytest.mark.parametrize(
    ("rows", "spec", "support", "expected"),
    [
        (576, INT4, CPU, 64),  # 5 blocks of 128 would hold 640
        (4096, INT4, CPU, 128),
        (1536, UINT4, CPU, 128),
        (40, INT4, CPU, 64),  # one block of 64 takes less than two of 32
        (32, INT4, CPU, 32),
        (96, INT4, RTX, 32),  # the target takes whole blocks only
        (128, INT4, RTX, 64),  # and more than one
        (576, INT4, RTX, 64),
    ],
)
def test_auto(rows, spec, support, expected):
    assert block_size("auto", rows, spec, support) == expected


def test_the_bits_of_a_column():
    assert column_bits(64, 576, INT4) == 9 * (64 * 4 + 32)
    assert column_bits(128, 576, UINT4) == 5 * (128 * 4 + 32 + 4)
    half = QuantSpec("uint2", symmetric=False, float_zero_point=True, scale_dtype="float16")
    assert column_bits(32, 40, half) == 2 * (32 * 2 + 16 + 16)


@pytest.mark.parametrize(
    ("asked", "rows", "spec", "support", "reason"),
    [
        ("auto", 40, INT4, RTX, "40 rows are no multiple"),
        ("auto", 32, INT4, RTX, "32 rows are one block"),
        (None, 64, INT4, RTX, "no block as long as a column"),
        (None, 576, INT4, CPU, "576 rows are no power of two"),
        (None, 64, QuantSpec("int2"), CPU, "no block as long as a column with 2-bit"),
    ],
)
def test_what_a_target_cannot_run(asked, rows, spec, support, reason):
    found = block_size(asked, rows, spec, support)
    assert isinstance(found, No)
    assert reason in found.reason


def test_one_block_per_column():
    assert block_size(None, 64, INT4, CPU) == 64
