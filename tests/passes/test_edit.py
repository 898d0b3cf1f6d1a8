"""Editing graphs: names stay unique, edges end where they should, constants are what they are."""

import numpy as np
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

from onnxq.passes.edit import (
    Editor,
    Names,
    all_graphs,
    constant,
    constant_array,
    graph_of,
    remove,
    replace_output,
    rewire,
)

NESTED = """
g (bool c, float[2] x) => (float[2] y) {
    y = If (c) <
        then_branch = t () => (float[2] a) { a = Relu(x) },
        else_branch = e () => (float[2] b) { b = Neg(x) }
    >
}
"""


@pytest.fixture
def model():
    return with_weights("g (float[2, 3] x, float[3, 3] w) => (float[2, 3] y) "
                        "{ [a] h = MatMul(x, w) [b] r = Relu(h) [c] y = Add(h, r) }")  # fmt: skip


def value(model, name):
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def test_all_graphs_finds_the_branches_of_an_if():
    assert [graph.name for graph in all_graphs(with_weights(NESTED))] == ["g", "t", "e"]


def test_graph_of_a_node_in_no_graph():
    with pytest.raises(TypeError, match="in no graph"):
        graph_of(ir.node("Relu", []))


def test_constant_is_an_initializer_that_nothing_overrides(model):
    weight = model.graph.initializers["w"]
    assert constant(weight) is weight.const_value
    assert constant_array(weight).shape == (3, 3)
    assert constant(None) is None
    assert constant(model.graph.inputs[0]) is None
    assert constant_array(value(model, "h")) is None


def test_an_initializer_that_is_an_input_too_is_no_constant(model):
    weight = model.graph.initializers["w"]
    model.graph.inputs.append(weight)
    assert constant(weight) is None


def test_names_are_never_given_twice(model):
    names = Names(model)
    assert names.new("fresh") == "fresh"
    assert names.new("fresh") == "fresh_1"
    assert names.new("w") == "w_1"
    assert names.new("h") == "h_1"
    assert names.new("a") == "a_1"


def test_names_in_branches_are_taken():
    assert Names(with_weights(NESTED)).new("b") == "b_1"


def test_an_initializer_has_the_type_of_its_array(model):
    made = Editor(model).initializer(model.graph, "w", np.ones((2,), np.int8))
    assert (made.name, made.dtype, made.shape.numpy()) == ("w_1", ir.DataType.INT8, (2,))
    assert model.graph.initializers["w_1"] is made


def test_a_node_goes_before_or_after_another(model):
    editor = Editor(model)
    nodes = {node.name: node for node in model.graph}
    h = value(model, "h")
    editor.node("Neg", [h], name="after", after=nodes["a"])
    editor.node("Neg", [h], name="before", before=nodes["c"])
    editor.node("Neg", [model.graph.inputs[0]], name="first", graph=model.graph)
    assert [node.name for node in model.graph] == ["first", "a", "after", "b", "before", "c"]


def test_a_node_of_another_domain_is_imported(model):
    Editor(model).node("Gelu", [value(model, "h")], name="g", graph=model.graph, domain="d")
    assert model.opset_imports == {"": 17, "d": 1}


def test_a_node_into_an_empty_graph():
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=10)
    Editor(model).node("Constant", [], name="n", graph=model.graph)
    assert [node.op_type for node in model.graph] == ["Constant"]


def test_a_copy_computes_the_same_and_keeps_the_attributes():
    model = with_weights("g (float[2, 3] x) => (float[2, 3] y) "
                         "{ [s] y = Softmax <axis = 0> (x) }")  # fmt: skip
    twin = Editor(model).copy(model.graph[0], [model.graph.inputs[0]])
    assert (twin.name, twin.outputs[0].name) == ("s_copy", "y_copy")
    assert twin.outputs[0].dtype == ir.DataType.FLOAT
    model.graph.outputs.append(twin.outputs[0])
    first, second = compute(model, **random_feed(model))
    np.testing.assert_array_equal(first, second)


def test_rewire_takes_a_snapshot_of_uses(model):
    h = value(model, "h")
    editor = Editor(model)
    new = editor.node("Neg", [h], name="neg", after=h.producer())
    rewire([(node, i) for node, i in h.uses() if node.op_type != "Neg"], new)
    assert {node.op_type for node, _ in h.uses()} == {"Neg"}
    assert len(new.uses()) == 2


def test_replace_output_hands_on_name_type_and_shape(model):
    editor = Editor(model)
    old = value(model, "h")
    new = editor.node("MatMul", old.producer().inputs, name="other", before=old.producer())
    replace_output(old, new)
    assert not old.uses()
    assert (new.dtype, new.shape) == (old.dtype, old.shape)
    remove([old.producer()])
    assert [node.name for node in model.graph] == ["other", "b", "c"]


def test_replace_output_of_a_graph_output_keeps_its_name(model):
    editor = Editor(model)
    old = model.graph.outputs[0]
    new = editor.node("Neg", [value(model, "r")], name="neg", before=old.producer())
    replace_output(old, new)
    remove([old.producer()])
    assert model.graph.outputs[0] is new
    assert new.name == "y"


def test_a_node_that_is_read_is_not_removed(model):
    with pytest.raises(ValueError, match="still"):
        remove([model.graph[0]])
