"""Which changes of a model the fingerprint sees."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxq.calib.fingerprint import fingerprint

BRANCHES = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    k = Constant <value = float[1] {3.0}> ()
    y = If (c) <
        then_branch = t () => (float[n] p) { p = Add(x, k) },
        else_branch = e () => (float[n] q) { q = Mul(x, k) }
    >
}
"""


def test_it_is_stable(model):
    assert fingerprint(model) == fingerprint(model.clone())
    assert len(fingerprint(model)) == 64


def test_file_layout_and_initializer_order_do_not_matter(model, tmp_path):
    expected = fingerprint(model)
    w = ir.Tensor(np.arange(1000, dtype=np.float32).reshape(1000, 1)[:3], name="w")
    model.graph.initializers["w"].const_value = w
    changed = fingerprint(model)
    assert changed != expected
    ir.save(model, tmp_path / "in.onnx")
    ir.save(model, tmp_path / "out.onnx", external_data="out.data", size_threshold_bytes=0)
    for name in ("in.onnx", "out.onnx"):
        assert fingerprint(ir.load(tmp_path / name)) == changed
    reordered = model.clone()
    first = next(iter(reordered.graph.initializers))
    value = reordered.graph.initializers.pop(first)
    reordered.graph.initializers[first] = value
    assert list(reordered.graph.initializers) != list(model.graph.initializers)
    assert fingerprint(reordered) == changed


def test_lazy_and_packed_weights_count_by_their_bytes(model):
    value = model.graph.initializers["w"]
    tensor = value.const_value
    expected = fingerprint(model)
    value.const_value = ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=tensor.shape)
    assert fingerprint(model) == expected


def test_names_that_mean_nothing_do_not_matter(model):
    expected = fingerprint(model)
    model.graph.node(0).name = "other"
    model.graph.node(0).doc_string = "doc"
    model.metadata_props["a"] = "b"
    assert fingerprint(model) == expected


@pytest.mark.parametrize("change", ["op", "value name", "weight", "shape", "opset", "output"])
def test_changes_that_matter(model, change):
    before = fingerprint(model)
    node = model.graph.node(1)
    if change == "op":
        node.op_type = "Sigmoid"
    elif change == "value name":
        node.outputs[0].name = "other"
    elif change == "weight":
        new = ir.Tensor(np.array([[1], [-2], [0.25]], np.float32))
        model.graph.initializers["w"].const_value = new
    elif change == "shape":
        model.graph.inputs[0].shape = ir.Shape([1, 3, "width"])
    elif change == "opset":
        model.graph.opset_imports[""] = 18
    else:
        model.graph.outputs.pop()
    assert fingerprint(model) != before


@pytest.mark.parametrize("change", [("3.0", "4.0"), ("Mul", "Sub"), ("p = Add(x", "p = Add(k")])
def test_constants_and_branches_count(change):
    other = ir.from_onnx_text(BRANCHES.replace(*change))
    assert fingerprint(ir.from_onnx_text(BRANCHES)) != fingerprint(other)
