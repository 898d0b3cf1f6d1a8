"""Every decision as data: what is quantized to what, what stays in float and why."""

import pytest
from graphs import with_weights

from onnxq import targets
from onnxq.errors import TargetError
from onnxq.onnxfile import stored_bytes
from onnxq.passes.plan import make_plan, observable
from onnxq.recipe import PRESETS, resolve

MIXED = """
g (float[1, 32, 8, 8] x, float[32, 32, 3, 3] w1, float[32, 1, 3, 3] w2, float[32, 8, 2, 2] w3,
   float[1152, 64] w4, float[64, 64] w5)
=> (float[1, 64] y) {
    [conv] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    [relu] b = Relu(a)
    [depthwise] c = Conv <group = 32, pads = [1, 1, 1, 1]> (b, w2)
    [up] d = ConvTranspose <strides = [2, 2]> (c, w3)
    [flat] e = Flatten(d)
    [cut] f = Slice(e, ws, we, wa)
    [gemm] h = Gemm(f, w4)
    [matmul] i = MatMul(h, w5)
    [product] y = MatMul(i, wq)
}
"""
WEIGHTS = "int64[1] ws, int64[1] we, int64[1] wa, float[64, 64] wq, "
MIXED = MIXED.replace("float[32, 32", WEIGHTS + "float[32, 32", 1)


def plan(preset="int8", target="ort-cpu", recipe=None, graph=MIXED):
    return make_plan(with_weights(graph), resolve(preset, recipe), targets.get(target))


def ops(found):
    return [op.node for op in found.ops]


def reasons(found):
    return {kept.node: kept.reason for kept in found.kept}


def test_int8_for_onnx_runtime():
    found = plan()
    assert ops(found) == ["conv", "gemm", "matmul", "product"]
    assert "at most 64 products an output" in reasons(found)["depthwise"]
    assert "no integer ConvTranspose kernel" in reasons(found)["up"]
    assert "no weights to multiply by" in reasons(found)["relu"]
    assert all(op.precision == "int8" and op.scheme == "static" for op in found.ops)
    assert [str(op.weight) for op in found.ops][1:3] == ["int8 symmetric per-channel(axis 1)"] * 2
    assert {str(op.activation) for op in found.ops} == {"uint8 asymmetric per-tensor"}


def test_outputs_are_quantized_where_kernels_need_it_behind_the_activation():
    assert [op.output and op.output.name for op in plan().ops] == ["b", None, None, None]
    assert all(op.output is None for op in plan(target="rtx-sm89").ops)


@pytest.mark.parametrize(
    ("between", "anchor"),
    [
        ("r = Relu(a) y = Neg(r)", "r"),
        ("r = Clip(a, wl, wl) y = Neg(r)", "r"),
        ("r = Clip(a, l, wl) y = Neg(r)", "a"),
        ("r = Relu(a) y = Add(a, r)", "a"),
        ("r = Sigmoid(a) y = Neg(r)", "a"),
    ],
)
def test_the_output_to_quantize(between, anchor):
    graph = (
        "g (float[1, 32, 8, 8] x, float l, float[32, 32, 3, 3] w, float wl) => (float[n] y) "
        f"{{ [conv] a = Conv(x, w) {between} }}"
    )
    assert plan(graph=graph).ops[0].output.name == anchor


def test_every_kind_of_conv_has_its_output_quantized():
    graph = """g (float[1, 8, 8, 8] x, float[8, 8, 1, 1] w1, float[8, 8, 1, 1] w2,
        float[8, 1, 3, 3] w3, float[32, 8, 1, 1] w4, float[32, 32, 7, 7] w5)
    => (float[n] y) {
        [thin] a = Conv(x, w1) p = GlobalAveragePool(a) [pooled] s = Conv(p, w2) m = Mul(a, s)
        [depthwise] b = Conv <group = 8> (m, w3) c = Conv(b, w4)
        [large] y = Conv <pads = [3, 3, 3, 3]> (c, w5)
    }"""
    found = [
        (op.operands.kind, op.output.name) for op in plan("int16-activations", graph=graph).ops
    ]
    assert found == [
        ("thin-conv", "a"),
        ("pooled-conv", "s"),
        ("depthwise-conv", "b"),
        ("thin-conv", "c"),
        ("large-conv", "y"),
    ]


def test_int8_for_tensorrt():
    found = plan(target="rtx-sm89")
    assert ops(found) == ["conv", "gemm", "matmul", "product"]
    assert "pads each group" in reasons(found)["depthwise"]
    assert {str(op.activation) for op in found.ops} == {"int8 symmetric per-tensor"}


def test_int4():
    found = plan("int4")
    assert ops(found) == ["gemm", "matmul", "product"]
    assert "a Conv with a kernel of" in reasons(found)["conv"]
    assert {str(op.weight) for op in found.ops} == {"uint4 asymmetric block 32(axis 0)"}
    assert {str(op.weight) for op in plan("int4", "rtx-sm89").ops} == {
        "int4 symmetric block 32(axis 0)"
    }
    assert all(op.scheme == "weight-only" and op.precision == "int4" for op in found.ops)
    assert found.activations() == {}


def test_precedence_of_exclusions_and_rules():
    recipe = {
        "exclude": ["gem?"],
        "weights": {"block_size": 64},
        "rules": [
            {"match": "*m*", "weights": {"block_size": 16}},
            {"match": "prod*", "keep_float": True},
            {"match": "matmul", "weights": {"symmetric": True}},
        ],
    }
    found = plan("int4", recipe=recipe)
    assert reasons(found)["gemm"] == "excluded by 'gem?'"
    assert reasons(found)["product"] == "excluded by 'prod*'"
    assert [str(op.weight) for op in found.ops] == ["int4 symmetric block 64(axis 0)"]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("target", targets.all_targets(), ids=lambda target: target.name)
def test_the_model_is_not_modified_and_no_node_is_forgotten(preset, target):
    model = with_weights(MIXED)
    before = [(n.name, [v and v.name for v in n.inputs]) for n in model.graph], stored_bytes(model)
    try:
        found = make_plan(model, resolve(preset), target)
    except TargetError as refusal:
        assert target.name in str(refusal)
    else:
        every = sorted([*ops(found), *reasons(found)])
        assert every == sorted(node.name for node in model.graph)
    assert (
        [(n.name, [v and v.name for v in n.inputs]) for n in model.graph],
        stored_bytes(model),
    ) == before


def test_ragged_and_single_blocks_and_shared_weights():
    graph = (
        "g (float[8, 40] x, float[8, 32] u, float[40, 64] w1, float[32, 64] w2, float[64, 64] w3) "
        "=> (float[8, 64] y) { [ragged] a = MatMul(x, w1) [single] b = MatMul(u, w2) "
        "[one] c = MatMul(a, w3) [two] d = MatMul(b, w3) y = Add(c, d) }"
    )
    assert ops(plan("int4", graph=graph)) == ["ragged", "single", "one", "two"]
    with_engine = plan("int4", "rtx-sm89", graph=graph)
    assert ops(with_engine) == []
    said = reasons(with_engine)
    assert "40 rows are no multiple of the block size 32" in said["ragged"]
    assert "32 rows are one block of 32" in said["single"]
    assert "other nodes read its weight too" in said["one"] == said["two"]


def test_a_weight_shared_through_its_transpose():
    graph = (
        "g (float[8, 64] x, float[64, 64] w) => (float[8, 64] y) "
        "{ e = MatMul(x, w) t = Transpose(w) [head] y = MatMul(e, t) }"
    )
    assert "other nodes read its weight" in reasons(plan("int4", "rtx-sm89", graph=graph))["head"]


@pytest.mark.parametrize(
    ("preset", "target", "recipe", "says"),
    [
        ("int8", "ort-cuda", None, "Target 'ort-cuda' cannot run int8 .* Ask for --preset int4"),
        ("int8", "rtx-sm75", None, "Target 'rtx-sm75' cannot run int8"),
        ("int4", "rtx-sm75", None, "Target 'rtx-sm75' cannot run int4 .* rtx-sm86 or newer"),
        ("int4", "ort-cuda", {"weights": {"block_size": 256}}, "no kernel for block size 256.*128"),
        ("int4", "rtx-sm89", {"weights": {"bits": 8}}, "weights of 8 bits.*Choose 4"),
        ("int4", "ort-cuda", {"weights": {"bits": 2}}, "weights of 2 bits.*Choose 4 or 8"),
        (
            "int4",
            "ort-cpu",
            {"weights": {"bits": 8, "float_zero_points": True}},
            "no float zero points of 8-bit",
        ),
        ("int4", "rtx-sm89", {"weights": {"symmetric": False}}, "without zero points only"),
        (
            "int4",
            "rtx-sm89",
            {"rules": [{"match": "*", "weights": {"block_size": 48}}]},
            "no kernel for block size 48",
        ),
    ],
)
def test_what_a_target_cannot_do(preset, target, recipe, says):
    with pytest.raises(TargetError, match=says):
        plan(preset, target, recipe)


def test_ops_in_branches_are_planned():
    graph = (
        "g (bool c, float[8, 64] x, float[64, 64] w) => (float[8, 64] y) { y = If (c) < "
        "then_branch = t () => (float[8, 64] a) { [inner] a = MatMul(x, w) }, "
        "else_branch = e () => (float[8, 64] b) { b = Neg(x) } > }"
    )
    assert ops(plan(graph=graph)) == ops(plan("int4", graph=graph)) == ["inner"]
    assert observable(with_weights(graph)) == {"x": -1, "a": -1}


def test_ops_in_loops_are_planned():
    graph = (
        "g (int64 n, bool c, float[8, 64] x, float[64, 64] w) => (float[8, 64] y) "
        "{ y = Loop (n, c, x) < body = b (int64 i, bool go, float[8, 64] h) => "
        "(bool on, float[8, 64] next) { on = Identity(go) [inner] next = MatMul(h, w) } > }"
    )
    assert ops(plan(graph=graph)) == ops(plan("int4", graph=graph)) == ["inner"]
    assert observable(with_weights(graph)) == {"h": -1, "next": -1}


def test_ops_in_scans_are_not_calibrated():
    graph = (
        "g (float[8, 64] x, float[9, 64] s, float[64, 64] w) => (float[8, 64] y) "
        "{ y = Scan <num_scan_inputs = 1, body = b (float[8, 64] h, float[64] e) => "
        "(float[8, 64] next) { [inner] p = MatMul(h, w) next = Add(p, e) }> (x, s) }"
    )
    assert "in the body of a Scan" in reasons(plan(graph=graph))["inner"]
    assert ops(plan("int4", graph=graph)) == ["inner"]
    assert observable(with_weights(graph)) == {}


def test_the_same_decisions_after_an_edit():
    model = with_weights(MIXED)
    found = make_plan(model, resolve("int8"), targets.get("ort-cpu")).leave_float({"gemm": "why"})
    again = found.again(model.clone())
    assert ops(again) == ops(found)
    assert reasons(again) == reasons(found)


def test_an_op_of_another_domain_is_not_taken_for_one_that_is_known():
    graph = "g (float[8, 64] x, float[64, 64] w) => (float[8, 64] y) { [mine] y = MatMul(x, w) }"
    model = with_weights(graph)
    model.graph[0].domain = "mine"
    found = make_plan(model, resolve("int8"), targets.get("ort-cpu"))
    assert "no weights to multiply by" in reasons(found)["mine"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("ort-cpu", {"sum": "2 to 13 % slower", "joined": "gains no time", "gate": "loses 9 dB"}),
        (
            "rtx-sm89",
            {"sum": "only adds work", "joined": "joins them in int8", "gate": "no weights"},
        ),
    ],
)
def test_ops_without_weights_stay_in_float_for_what_was_measured_on_the_target(target, why):
    graph = (
        "g (float[1, 32, 8, 8] x, float[32, 32, 3, 3] w) => (float[1, 64, 8, 8] y) "
        "{ [conv] a = Conv <pads = [1, 1, 1, 1]> (x, w) [gate] s = Sigmoid(a) "
        "[sum] b = Add(a, s) [joined] y = Concat <axis = 1> (a, b) }"
    )
    found = plan(target=target, graph=graph)
    assert ops(found) == ["conv"]
    assert list(reasons(found)) == ["gate", "sum", "joined"]
    assert all(part in reasons(found)[node] for node, part in why.items())


def test_an_op_of_another_domain_is_not_taken_for_an_addition():
    model = with_weights("g (float[4] x, float[4, 4] w) => (float[4] y) { [mine] y = Add(x, x) }")
    model.graph[0].domain = "mine"
    found = make_plan(model, resolve("int8"), targets.get("ort-cpu"))
    assert "no weights to multiply by" in reasons(found)["mine"]


def test_ops_left_in_float_afterwards():
    found = plan().leave_float({"gemm": "because"})
    assert ops(found) == ["conv", "matmul", "product"]
    assert reasons(found)["gemm"] == "because"


def test_what_any_target_may_want_to_calibrate():
    seen = set(observable(with_weights(MIXED)))
    for name in ("ort-cpu", "rtx-sm89"):
        assert set(plan(target=name).activations()) <= seen
    assert seen == {"x", "a", "b", "c", "d", "f", "h", "i", "y"} - {"a"}


def test_nodes_are_called_by_the_names_of_their_weights_too():
    graph = """
    g (int64[2] ids, float[2048, 64] w_head, float[64, 64] w_gate) => (float[2, 2048] y) {
        [n0] a = Gather(w_head, ids)
        [n1] b = MatMul(a, w_gate)
        t = Transpose(w_head)
        [n2] y = MatMul(b, t)
    }
    """
    rule = {"match": "w_gat?", "weights": {"bits": 8}}
    found = plan("int4", recipe={"exclude": ["w_h*"], "rules": [rule]}, graph=graph)
    assert [(op.node, op.precision) for op in found.ops] == [("n1", "int8")]
    assert reasons(found)["n0"] == reasons(found)["n2"] == "excluded by 'w_h*'"
