"""Comparing small models whose errors are known."""

import json
import math

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.comparison import compare
from onnxq.comparison.accumulate import OutputError
from onnxq.errors import DataError, ModelError

HEAD = '<ir_version: 10, opset_import: ["" : 17]> '


def scaled(factor, shape="n, 2", name="y"):
    return ir.from_onnx_text(
        f"{HEAD} g (float[{shape}] x) => (float[{shape}] {name}) "
        f"<float[1] s = {{{factor}}}> {{ {name} = Mul(x, s) }}"
    )


def feeds(*arrays):
    return [{"x": np.array(a, np.float32)} for a in arrays]


DATA = feeds([[1, 2]], [[30, -40], [5, 0]])


def test_numbers_over_the_whole_data_set():
    found = compare(scaled(1.0), scaled(1.5), DATA)
    (output,) = found.outputs
    assert output.name == "y"
    assert output.sqnr_db == pytest.approx(10 * math.log10(4))
    assert output.cosine == pytest.approx(1)
    assert output.max_abs_error == 20
    assert output.argmax_agreement == 1
    assert (output.worst_slice_db, output.slice_axis) == (None, None)
    assert (found.samples, found.matched_by, found.is_random) == (2, "name", False)
    assert found.min_sqnr_db == output.sqnr_db


def test_sqnr_does_not_depend_on_the_batching():
    one = ir.from_onnx_text(
        f"{HEAD} g (float[n, 2] x) => (float[n, 2] y) "
        "<float[2] s = {1.1, 0.9}> { y = Mul(x, s) }"
    )
    rows = np.random.default_rng(0).standard_normal((6, 2))
    split = compare(scaled(1.0), one, feeds(*rows[:, None]))
    whole = compare(scaled(1.0), one, feeds(rows))
    assert split.min_sqnr_db == pytest.approx(whole.min_sqnr_db, abs=1e-9)


def test_equal_models():
    found = compare(scaled(1.0), scaled(1.0), DATA)
    assert found.min_sqnr_db == math.inf
    assert found.to_rows() == [
        ["output", "SQNR dB", "cosine", "max abs error", "same argmax"],
        ["y", "inf", "1.000000", "0", "100.00%"],
    ]
    as_json = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert as_json["min_sqnr_db"] == as_json["outputs"][0]["sqnr_db"] == "inf"
    assert as_json["data"] == "a list of 2 feeds"


def test_paths_and_random_data(tmp_path):
    ir.save(scaled(1.0), tmp_path / "a.onnx")
    ir.save(scaled(2.0), tmp_path / "b.onnx", external_data="b.data", size_threshold_bytes=0)
    found = compare(tmp_path / "a.onnx", str(tmp_path / "b.onnx"), "random:2")
    assert found.min_sqnr_db == pytest.approx(0, abs=1e-6)
    assert found.is_random


def test_boxes_that_hide_dead_scores():
    """Boxes in pixels are exact, every score is lost: only the worst slice tells."""
    keep = ir.from_onnx_text(f"{HEAD} g (float[1, 3, n] x) => (float[1, 3, n] y) {{ y = Relu(x) }}")
    lose = ir.from_onnx_text(
        f"{HEAD} g (float[1, 3, n] x) => (float[1, 3, n] y) "
        "<float[3, 1] s = {1.0, 1.0, 0.0}> { y = Mul(x, s) }"
    )
    boxes = np.full((1, 2, 5), 300.0)
    data = feeds(np.concatenate([boxes, np.full((1, 1, 5), 0.9)], axis=1))
    (output,) = compare(keep, lose, data).outputs
    assert output.sqnr_db > 50
    assert (output.worst_slice_db, output.worst_slice, output.slice_axis) == (0, 2, 1)
    assert output.argmax_agreement is None


def test_nan_is_reported():
    bad = ir.from_onnx_text(f"{HEAD} g (float[n, 2] x) => (float[n, 2] y) {{ y = Sqrt(x) }}")
    found = compare(scaled(1.0), bad, DATA)
    assert math.isnan(found.min_sqnr_db)
    assert found.outputs[0].non_finite_candidate == 1
    assert found.outputs[0].non_finite_reference == 0
    assert found.to_rows()[1][-1] == "0 in the reference, 1 in the candidate"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["min_sqnr_db"] == "nan"


def test_outputs_are_paired_by_position_if_the_names_differ():
    found = compare(scaled(1.0), scaled(1.0, name="z"), DATA)
    assert found.matched_by == "position"
    assert found.outputs[0].name == "y"


TWO = HEAD + "g (float[n, 2] x) => (float[n, 2] {}, float[n, 2] {}) {{ y = Relu(x) z = Neg(x) }}"


def test_outputs_are_paired_by_name_in_any_order():
    one, other = (ir.from_onnx_text(TWO.format(*names)) for names in ("yz", "zy"))
    found = compare(one, other, DATA)
    assert [o.sqnr_db for o in found.outputs] == [math.inf, math.inf]


def test_floats_are_fed_as_halves_where_a_model_takes_those():
    graph = "g ({0}[n, 2] x) => ({0}[n, 2] y) {{ y = Neg(x) }}"
    one, other = (ir.from_onnx_text(HEAD + graph.format(t)) for t in ("float", "float16"))
    (found,) = compare(one, other, DATA).outputs
    assert found.cosine > 0.999999


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (ir.from_onnx_text(TWO.format("y", "z")), "The outputs do not match.*'z' tensor"),
        (
            ir.from_onnx_text(f"{HEAD} g (float[n, 2] a) => (float[n, 2] y) {{ y = Neg(a) }}"),
            r"differ in the input 'x': float32\[n, 2\] in the reference, absent in the candidate",
        ),
        (
            ir.from_onnx_text(f"{HEAD} g (double[n, 2] x) => (double[n, 2] y) {{ y = Neg(x) }}"),
            "differ in the input 'x': float32.* in the reference, float64",
        ),
        (
            ir.from_onnx_text(f"{HEAD} g (float[n, 2] x) => (float[m] z) {{ z = ReduceSum(x) }}"),
            "The outputs do not match",
        ),
        (
            ir.from_onnx_text(
                f"{HEAD} g (float[n, 2] x) => (float[b, a] y) {{ y = Transpose(x) }}"
            ),
            r"Output 'y' has the shape \[1, 2\] in the reference and \[2, 1\].*feed 0",
        ),
        (
            ir.from_onnx_text(
                f"{HEAD} g (float[n, 2] x) => (string[n, 2] y) {{ y = Cast <to = 8> (x) }}"
            ),
            r"The outputs do not match.*the candidate has 'y' tensor\(string\)",
        ),
    ],
)
def test_models_that_do_not_match(candidate, message):
    with pytest.raises(ModelError, match=message):
        compare(scaled(1.0), candidate, DATA)


def test_no_data():
    with pytest.raises(DataError, match="There is no feed"):
        compare(scaled(1.0), scaled(1.0), [])


@pytest.mark.parametrize(
    ("dims", "logits", "axis"),
    [
        (["n", 10], True, None),
        (["n", 1], False, None),
        (["n", "m"], False, None),
        (["n", "sequence", 50000], True, None),
        (["n", "sequence", 97], True, 2),
        (["n", 84, "anchors"], False, 1),
        ([1, 84, 8400], False, 1),
        ([1, 25200, 85], False, 2),
        (["n", 1, 64, 64], False, None),
        ([], False, None),
    ],
)
def test_what_an_output_is_taken_for(dims, logits, axis):
    shape = [2 if isinstance(dim, str) else dim for dim in dims]
    error = OutputError("y", dims, is_float=True)
    error.update(np.ones(shape), np.zeros(shape))
    found = error.finish()
    assert (found.argmax_agreement is not None) == logits
    assert found.slice_axis == axis
    assert found.worst_slice_db == (None if axis is None else 0)
