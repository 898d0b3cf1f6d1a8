"""What ONNX Runtime loads is loaded, and tensors in files are read from where they are."""

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights
from onnx import TensorProto, helper, numpy_helper

import onnxq
from onnxq import io
from onnxq.errors import ModelError

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(0, 0.1, (64, 64)).astype(np.float32)
X = RANDOM.normal(size=(2, 64)).astype(np.float32)


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def proto(nodes, weights=(), opset=17, ir_version=8, outputs=("y",), functions=(), imports=None):
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", ["n", 64])],
        [value(name, ["n", 64]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    imports = imports or [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=ir_version, functions=functions
    )


def product(weight="w", output="y"):
    return helper.make_node("MatMul", ["x", weight], [output], name=output)


def sparse(array, linear=True):
    places = np.flatnonzero(array)
    indices = places if linear else np.stack(np.unravel_index(places, array.shape), 1)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array.ravel()[places], "w"),
        numpy_helper.from_array(indices.astype(np.int64), "w_indices"),
        list(array.shape),
    )


def int4(model):
    return onnxq.quantize(model, preset="int4", target="ort-cpu", recipe=RTN)


RTN = {"weights": {"algorithm": "rtn"}}


def check(model, array=WEIGHT, feed=X):
    """One product by `array` is in 4 bits, and computes what it should."""
    result = int4(model)
    assert [d.action for d in result.report.decisions if d.op_type == "MatMul"] == ["int4"]
    (found, *_) = compute(result.model, x=feed)
    expected = feed @ array
    assert np.linalg.norm(found - expected) < 0.15 * np.linalg.norm(expected)


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_weights_become_dense(linear):
    array = np.where(RANDOM.random((64, 64)) < 0.1, WEIGHT, 0).astype(np.float32)
    model = proto([product()])
    model.graph.sparse_initializer.append(sparse(array, linear))
    before = model.SerializeToString()
    check(model, array)
    constant = helper.make_node("Constant", [], ["w"], sparse_value=sparse(array, linear))
    check(proto([constant, product()]), array)
    assert model.SerializeToString() == before


def test_a_sparse_weight_that_is_not_valid_is_named():
    model = proto([product()])
    wrong = sparse(WEIGHT)
    wrong.indices.CopyFrom(numpy_helper.from_array(np.full(64 * 64, 9999), "i"))
    model.graph.sparse_initializer.append(wrong)
    with pytest.raises(ModelError, match="'w'"):
        io.load(model)


def test_an_empty_weight_stays_with_its_reason():
    nodes = [product(), product("e", "z")]
    model = proto(nodes, [("w", WEIGHT), ("e", np.zeros((64, 0), np.float32))])
    model.graph.output.append(value("z", ["n", 0]))
    result = int4(model)
    reasons = {d.node: d.reason for d in result.report.decisions}
    assert reasons["z"] == "its weight, of shape [64, 0], is empty"
    assert [array.shape for array in compute(result.model, x=X)] == [(2, 64), (2, 0)]


def test_nodes_in_any_order():
    nodes = [helper.make_node("Relu", ["a"], ["y"]), product(output="a")]
    model = proto(nodes, [("w", WEIGHT)])
    (found,) = compute(int4(model).model, x=X)
    assert np.linalg.norm(found - np.maximum(X @ WEIGHT, 0)) < 0.2 * np.linalg.norm(found)
    unsorted = ir.from_proto(proto(nodes[::-1], [("w", WEIGHT)]))
    unsorted.graph.insert_before(
        unsorted.graph[0],
        node := unsorted.graph[1].__class__("", "Neg", [unsorted.graph[1].outputs[0]], name="neg"),
    )
    node.outputs[0].name = "neg"
    with pytest.raises(ModelError, match=r"not in the order.*sort"):
        io.load(unsorted)


def test_a_value_that_nothing_makes_and_a_cycle():
    with pytest.raises(ModelError, match=r"Node 'y' \(MatMul\).*reads 'nothing'"):
        io.load(proto([product("nothing")]))
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Neg", ["a"], ["y"]),
    ]
    with pytest.raises(ModelError, match="in a cycle"):
        io.load(proto(nodes))


def test_the_long_name_of_the_default_domain():
    model = proto([product()], [("w", WEIGHT)], imports=[helper.make_opsetid("ai.onnx", 17)])
    check(model)
    assert dict(io.load(model).opset_imports) == {"": 17}


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_that_are_inputs(ir_version):
    model = proto([product()], [("w", WEIGHT)], 11 if ir_version == 3 else 17, ir_version)
    model.graph.input.append(value("w", [64, 64]))
    check(model)
    notes = [w for w in int4(model).report.warnings if "They are constants now" in w]
    assert len(notes) == (ir_version >= 4)
    assert all("1 inputs of the model have a value in it ('w')" in note for note in notes)


def function(opset, nodes, name="Double"):
    return helper.make_function("own", name, ["a"], ["b"], nodes, [helper.make_opsetid("", opset)])


def call(name="Double"):
    return helper.make_node(name, ["h"], ["y"], domain="own")


@pytest.mark.parametrize("opset", [7, 13, 17, 18])
def test_functions_of_another_opset(opset):
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    nodes = [product(output="h"), call()]
    model = proto(nodes, [("w", WEIGHT)], functions=[function(opset, body)], imports=imports)
    check(model, 2 * WEIGHT)


def test_a_function_of_an_op_that_changed_is_named():
    axes = helper.make_node("ReduceMean", ["a"], ["b"], axes=[0])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    nodes = [product(output="h"), call()]
    model = proto(nodes, [("w", WEIGHT)], functions=[function(17, [axes])], imports=imports)
    message = r"function 'own::Double' is written for version 17.*model for 18.*ReduceMean"
    with pytest.raises(ModelError, match=message):
        int4(model)


def test_functions_of_an_op_that_only_looks_the_same():
    """GroupNormalization had a scale per group before opset 21."""
    node = helper.make_node("GroupNormalization", ["a", "s", "s"], ["b"], num_groups=2)
    body = [helper.make_node("Constant", [], ["s"], value_floats=[1.0, 1.0]), node]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    nodes = [product(output="h"), call()]
    model = proto(nodes, [("w", WEIGHT)], functions=[function(18, body)], imports=imports)
    with pytest.raises(ModelError, match="GroupNormalization is not the same in both"):
        int4(model)


def test_outputs_that_are_no_tensors():
    sequence = helper.make_node("SequenceConstruct", ["y", "y"], ["s"])
    model = proto([product(), sequence], [("w", WEIGHT)])
    info = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n", 64])
    model.graph.output.append(info)
    check(model)
    feeds = [
        random_feed(with_weights("g (float[2, 64] x) => (y) { y = Neg(x) }"), n) for n in range(8)
    ]
    result = onnxq.quantize(model, preset="int8", target="ort-cpu", calibration=feeds)
    assert "Output 's' is no tensor: its accuracy was not judged." in result.report.warnings
    assert onnxq.compare(io.load(model), result.model, feeds).skipped == ("s",)


def test_outputs_that_are_maps_are_refused():
    model = proto([product()], [("w", WEIGHT)])
    model.graph.output[0].type.map_type.key_type = TensorProto.INT64
    with pytest.raises(ModelError, match="Output 'y' of 'the model' holds a map"):
        io.load(model)


def test_what_is_declared_of_outputs_stays(tmp_path):
    """Inner shapes of a static export contradict a batch that was made dynamic by hand."""
    nodes = [product(output="a"), helper.make_node("Relu", ["a"], ["b"]), product("v")]
    nodes[2].input[0] = "b"
    model = proto(nodes, [("w", WEIGHT), ("v", WEIGHT)], opset=11)
    model.graph.value_info.extend([value("a", [1, 64]), value("b", [1, 64])])
    for preset in ("int4", "int8-dynamic"):
        result = onnxq.quantize(model, preset=preset, target="ort-cpu")
        assert [str(dim) for dim in result.model.graph.outputs[0].shape] == ["n", "64"]
        (found,) = compute(result.model, x=X)
        assert found.shape == (2, 64)


@pytest.mark.parametrize("opset", [23, 27, 28])
@pytest.mark.parametrize("preset", ["int8", "int4"])
def test_the_newest_opset(opset, preset):
    version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    model = proto([product()], [("w", WEIGHT)], opset, version)
    data = {"calibration": [{"x": X + n} for n in range(4)]} if preset == "int8" else {}
    result = onnxq.quantize(model, preset=preset, target="ort-cpu", **data)
    assert result.model.opset_imports[""] == (23 if opset == 28 else opset)
    (found,) = compute(result.model, x=X)
    assert np.linalg.norm(found - X @ WEIGHT) < 0.15 * np.linalg.norm(found)


@pytest.fixture
def external(tmp_path):
    """A model with tensors in a file that no initializer of the main graph is."""
    folder = tmp_path / "model"
    folder.mkdir()
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT, "w"))
    model = proto([constant, product()], opset=11)
    path = folder / "m.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="m.data", convert_attribute=True
    )
    return path


@pytest.mark.parametrize("preset", ["int4", "int8-dynamic"])
def test_constants_in_files_are_read_from_the_folder_of_the_model(
    external, preset, tmp_path, monkeypatch
):
    """A file of the same name in the working directory is another one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "m.data").write_bytes(os.urandom(64 * 64 * 4))
    monkeypatch.chdir(elsewhere)
    onnxq.quantize(external, preset=preset, target="ort-cpu").save("q.onnx")
    (found,) = compute(ir.load(elsewhere / "q.onnx"), x=X)
    assert np.linalg.norm(found - X @ WEIGHT) < 0.15 * np.linalg.norm(found)


@pytest.mark.parametrize("count", [60, 64, 65, 200, 255, 256])
def test_small_tensors_in_files(count, tmp_path):
    small = RANDOM.normal(size=count).astype(np.float32)
    large = np.resize(WEIGHT, (64, count)).astype(np.float32)
    nodes = [product(output="h"), helper.make_node("Mul", ["h", "g"], ["y"])]
    model = proto(nodes, [("w", large), ("g", small)])
    model.graph.output[0].CopyFrom(value("y", ["n", count]))
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="m.data", size_threshold=16)
    for preset in ("int4", "int8-dynamic"):
        onnxq.quantize(path, preset=preset, target="ort-cpu").save(tmp_path / "q.onnx")
        (found,) = compute(ir.load(tmp_path / "q.onnx"), x=X)
        expected = (X @ large) * small
        assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)


def test_a_proto_whose_weights_are_in_a_file_is_told_so(external):
    model = onnx.load(external, load_external_data=False)
    with pytest.raises(ModelError, match="does not say in which folder"):
        io.load(model)
