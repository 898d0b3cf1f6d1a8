"""From one form of codes to the other and back: the same numbers, bit for bit."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights
from hypothesis import given
from hypothesis import strategies as st

from onnxq import targets
from onnxq.errors import ModelError
from onnxq.passes.forms import ToBlockDequantize, ToMatMulNBits
from onnxq.passes.lower import LowerOps
from onnxq.passes.plan import make_plan
from onnxq.recipe import resolve

PRODUCTS = {
    "matmul": ("[op] y = MatMul(x, w)", "K, N"),
    "transpose": ("t = Transpose(w) [op] y = MatMul(x, t)", "N, K"),
    "gemm": ("[op] y = Gemm(x, w)", "K, N"),
    "gemm-bias": ("[op] y = Gemm <transB = 1> (x, w, wb)", "N, K"),
    "gemm-row-bias": ("[op] y = Gemm(x, w, wr)", "K, N"),
}
TIED = """
g (int64[tokens] ids, float[700, 96] w) => (float[tokens, 700] y)
{ x = Gather(w, ids) t = Transpose(w) [op] y = MatMul(x, t) }
"""


def product(form, rows, columns, dtype="float"):
    nodes, shape = PRODUCTS[form]
    shape = shape.replace("K", str(rows)).replace("N", str(columns))
    text = (
        f"g (float[3, {rows}] x, float[{shape}] w, float[{columns}] wb, float[1, {columns}] wr) "
        f"=> (float[3, {columns}] y) {{ {nodes} }}"
    )
    return with_weights(text.replace("float", dtype), 21)


def quantized(model, **weights):
    """`model` with MatMulNBits and GatherBlockQuantized."""
    recipe = resolve("int4", {"weights": {"algorithm": "rtn"} | weights, "tables": {}})
    assert LowerOps(make_plan(model, recipe, targets.get("ort-cpu")))(model).modified
    return saved(model)


def saved(model):
    """What is left of a model in a file: no lazy tensors, nothing unused."""
    ir.passes.common.RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def converted(model, form):
    model = model.clone()
    assert form()(model).modified
    return saved(model)


def ops(model):
    return [node.op_type for node in model.graph]


def whole(model):
    """All of a graph: nodes in order with their attributes, and the bytes of the initializers."""
    nodes = [
        (
            node.op_type,
            node.name,
            sorted((key, str(value.value)) for key, value in node.attributes.items()),
            [None if value is None else value.name for value in node.inputs],
        )
        for node in model.graph
    ]
    weights = {
        name: (value.const_value.dtype, tuple(value.shape), value.const_value.tobytes())
        for name, value in model.graph.initializers.items()
    }
    return nodes, weights


def assert_close(model, other, tolerance=1e-5):
    feed = random_feed(model)
    for one, two in zip(compute(model, **feed), compute(other, **feed), strict=True):
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_there_and_back(form, dtype, symmetric):
    packed = quantized(product(form, 96, 24, dtype), symmetric=symmetric)
    plain = converted(packed, ToBlockDequantize)
    assert "DequantizeLinear" in ops(plain)
    assert "MatMulNBits" not in ops(plain)
    back = converted(plain, ToMatMulNBits)
    assert "DequantizeLinear" not in ops(back)
    assert whole(back) == whole(packed)
    assert whole(converted(back, ToBlockDequantize)) == whole(plain)
    assert_close(packed, plain, 1e-5 if dtype == "float" else 4e-3)


@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 9),
    bits=st.sampled_from([2, 4, 8]),
    block=st.sampled_from([16, 32, 64, 128, 256]),
    symmetric=st.booleans(),
    form=st.sampled_from(["matmul", "transpose"]),
)
def test_any_width_block_and_length(rows, columns, bits, block, symmetric, form):
    weights = {"bits": bits, "block_size": block, "symmetric": symmetric}
    packed = quantized(product(form, rows, columns), **weights)
    plain = converted(packed, ToBlockDequantize)
    assert whole(converted(plain, ToMatMulNBits)) == whole(packed)
    node = next(node for node in plain.graph if node.op_type == "DequantizeLinear")
    codes, scale, *zero_point = (value.const_value.numpy() for value in node.inputs)
    assert codes.shape == (rows, columns)
    assert scale.shape == (-(-rows // block), columns)
    assert codes.dtype.name == f"{'' if symmetric else 'u'}int{bits}"
    assert len(zero_point) == (not symmetric)
    assert plain.opset_imports[""] == (25 if bits == 2 else 21)
    assert_close(packed, plain)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_table_and_the_head_that_share_codes(symmetric):
    packed = quantized(with_weights(TIED, 21), symmetric=symmetric)
    assert ops(packed) == ["Reshape", "GatherBlockQuantized", "MatMulNBits"]
    plain = converted(packed, ToBlockDequantize)
    assert sorted(ops(plain)) == [
        *("DequantizeLinear", "DequantizeLinear", "Gather", "MatMul", "Transpose")
    ]
    assert len(plain.graph.initializers) == (2 if symmetric else 3)
    feed = {"ids": np.array([0, 5, 699])}
    np.testing.assert_allclose(
        compute(packed, **feed)[0], compute(plain, **feed)[0], rtol=1e-5, atol=1e-5
    )
    back = converted(plain, ToMatMulNBits)
    assert whole(back) == whole(packed)
    assert whole(converted(back, ToBlockDequantize)) == whole(plain)


def test_a_table_and_a_head_of_ragged_rows_are_stored_apart_in_matmul_nbits():
    text = """
    g (int64[3] ids) => (float[3, 700] y)
    { d = DequantizeLinear <axis = 1, block_size = 32> (c, s) [look] x = Gather(d, ids)
      t = Transpose(d) [op] y = MatMul(x, t) }
    """
    model = plain_model(text, c=codes((700, 40)), s=scale((700, 2)))
    form = ToMatMulNBits()
    packed = model.clone()
    form(packed)
    assert form.notes == [
        "Gather 'look' has codes of its own now: those of MatMulNBits are padded, its rows of 40 "
        "are no blocks of 32"
    ]
    feed = {"ids": np.array([0, 5, 699])}
    for other in (packed, converted(packed, ToBlockDequantize)):
        np.testing.assert_allclose(
            compute(model, **feed)[0], compute(other, **feed)[0], rtol=1e-5, atol=1e-5
        )


def codes(shape, dtype=ir.DataType.INT4):
    return ir.tensor(np.random.default_rng(1).integers(0, 4, shape).astype(dtype.numpy()))


def scale(shape):
    return ir.tensor(np.random.default_rng(2).uniform(0.1, 1, shape).astype(np.float32))


def plain_model(text, opset=21, **constants):
    """The model of a graph in text, with initializers that no text can hold."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    for name, tensor in constants.items():
        value = next(
            value for node in model.graph for value in node.inputs if value and value.name == name
        )
        value.const_value, value.shape, value.dtype = tensor, tensor.shape, tensor.dtype
        model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize("dtype", [ir.DataType.UINT4, ir.DataType.UINT8, ir.DataType.INT8])
def test_zero_points_that_the_other_form_writes_out(dtype):
    """Of unsigned codes without zero points they are 0, and of signed ones those given."""
    signed = dtype == ir.DataType.INT8
    given = ", z" if signed else ""
    text = f"""
    g (float[3, 48] x) => (float[3, 5] y)
    {{ d = DequantizeLinear <axis = -2, block_size = 16> (c, s{given}) [op] y = MatMul(x, d) }}
    """
    points = {"z": codes((3, 5), dtype)} if signed else {}
    model = plain_model(text, c=codes((48, 5), dtype), s=scale((3, 5)), **points)
    packed = converted(model, ToMatMulNBits)
    assert len(packed.graph[0].inputs) == 4
    assert_close(model, packed)
    assert_close(model, converted(packed, ToBlockDequantize))


@pytest.mark.parametrize(
    ("nodes", "block", "message"),
    [
        ("d = DequantizeLinear <axis = 0, block_size = 8> (c, s) y = MatMul(x, d)", 8, "of 8 are"),
        ("d = DequantizeLinear <axis = 0, block_size = 48> (c, s) y = MatMul(x, d)", 48, "of 48"),
        ("[d] d = DequantizeLinear <axis = 0, block_size = 16> (c, s) [n] y = Add(x, d)", 16,
         "DequantizeLinear 'd' cannot be converted: Add 'n' reads it"),
        ("d = DequantizeLinear <axis = 0, block_size = 16> (c, s) [n] y = MatMul(d, x)", 16,
         "MatMul 'n' reads it"),
        ("d = DequantizeLinear <axis = 1, block_size = 16> (c, s) [n] y = MatMul(x, d)", 16,
         "MatMul 'n' reads it, .* blocks along axis 1"),
        ("d = DequantizeLinear <axis = 0, block_size = 16> (c, s) [n] y = Gemm <alpha = 2.> (x, d)",
         16, "Gemm 'n' reads it"),
        ("y = DequantizeLinear <axis = 0, block_size = 16> (c, s)", 16, "it is an output"),
    ],
)  # fmt: skip
def test_what_matmul_nbits_cannot_hold_is_refused_by_name(nodes, block, message):
    text = f"g (float[48, 48] x) => (float[48, 48] y) {{ {nodes} }}"
    along = (48, 48 // block) if "axis = 1" in nodes else (48 // block, 48)
    model = plain_model(text, c=codes((48, 48)), s=scale(along))
    before = whole(model)
    with pytest.raises(ModelError, match=message):
        ToMatMulNBits().edit(model)
    assert whole(model) == before


def test_codes_of_floats_are_refused():
    text = """
    g (float[3, 48] x) => (float[3, 5] y)
    { [d] d = DequantizeLinear <axis = 0, block_size = 16> (c, s) y = MatMul(x, d) }
    """
    constants = {"c": codes((48, 5), ir.DataType.FLOAT8E4M3FN), "s": scale((3, 5))}
    with pytest.raises(ModelError, match="'d' cannot be converted: its codes are float8e4m3fn"):
        ToMatMulNBits().edit(plain_model(text, 23, **constants))


def test_float_zero_points_are_refused():
    model = quantized(product("matmul", 64, 8), float_zero_points=True)
    with pytest.raises(ModelError, match="'op_MatMulNBits' cannot be converted: its zero points"):
        ToBlockDequantize().edit(model)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("weight_prepacked", 1, "layout for CUDA"),
        ("K", 65, "codes are .*; it needs 384 of them"),
        ("block_size", 48, "block_size 48"),
    ],
)
def test_other_layouts_and_damaged_files_are_refused(attribute, value, message):
    model = quantized(product("matmul", 64, 8))
    model.graph[0].attributes[attribute] = ir.AttrInt64(attribute, value)
    with pytest.raises(ModelError, match=message):
        ToBlockDequantize().edit(model)


def test_scales_and_zero_points_in_one_row_as_some_tools_write_them():
    model = quantized(product("matmul", 96, 7), symmetric=False)
    flat = model.clone()
    for value in flat.graph[0].inputs[2:]:
        value.const_value = ir.tensor(value.const_value.numpy().reshape(-1), name=value.name)
    assert whole(converted(flat, ToBlockDequantize)) == whole(converted(model, ToBlockDequantize))


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.UINT4])
def test_tables_of_4_bit_tensors(dtype):
    text = """
    g (int64[3] ids) => (float[3, 64] y)
    { y = com.microsoft.GatherBlockQuantized <block_size = 32> (c, ids, s) }
    """
    model = plain_model(text, c=codes((9, 64), dtype), s=scale((9, 2)))
    model.opset_imports["com.microsoft"] = 1
    plain = converted(model, ToBlockDequantize)
    feed = {"ids": np.array([0, 8, 5])}
    np.testing.assert_array_equal(compute(model, **feed)[0], compute(plain, **feed)[0])


def test_reordered_rows_are_refused():
    model = quantized(product("matmul", 64, 8))
    node = model.graph[0]
    node.resize_inputs(5)
    node.replace_input_with(4, node.inputs[1])
    with pytest.raises(ModelError, match="g_idx"):
        ToBlockDequantize().edit(model)


def test_what_no_other_form_holds_is_told():
    model = quantized(product("matmul", 64, 8))
    model.graph[0].attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 4)
    form = ToBlockDequantize()
    form(model)
    (note,) = form.notes
    assert note.startswith("MatMulNBits 'op_MatMulNBits' had accuracy_level 4")


def test_a_bias_where_the_activation_may_be_no_matrix():
    model = quantized(product("gemm-bias", 64, 8))
    model.graph.inputs[0].shape = None
    plain = model.clone()
    ToBlockDequantize()(plain)
    assert ops(plain)[-2:] == ["MatMul", "Add"]
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 64), np.float32)}
    model.graph.outputs[0].shape = plain.graph.outputs[0].shape = None
    np.testing.assert_allclose(compute(model, **feed)[0], compute(plain, **feed)[0], rtol=1e-4)


def test_a_model_without_such_codes_stays_as_it_is():
    model = product("matmul", 64, 8)
    for form in (ToBlockDequantize, ToMatMulNBits):
        assert not form()(model).modified
