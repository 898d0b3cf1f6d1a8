"""What a model plans and what a builder's log tells, compared."""

import pytest
from graphs import with_weights

from onnxq.engines.attest import attest, planned_products, read_layers

QDQ = """
  xq = QuantizeLinear(x, w_s, w_z)
  xd = DequantizeLinear(xq, w_s, w_z)
"""
MATMUL = (
    "g (float[8, 32] x, float w_s, int8 w_z, int8[32, 16] w_q, float[16] w_qs) => (float[8, 16] y)"
)

SUM = "g (float[8, 32] x, float w_s, int8 w_z) => (float[8, 32] y)"


def layer(name, kind, inputs, constants, nodes):
    def operands(types):
        return ", ".join(f"{{ Name: t, Dimensions: [1], Datatype: {t} }}" for t in types)

    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {operands(inputs)}], "
        f"Constants: [ {operands(constants)}], Outputs: [ {operands(['Float'])}], "
        f"TacticName: , StreamId: 0, Metadata: {metadata}\n"
    )


def verdict(tmp_path, planned, *layers):
    log = tmp_path / "log"
    log.write_text("Reading Calibration\nLayers:\n" + "".join(layers) + "Bindings:\n")
    (op,) = attest(planned, read_layers(log)).ops
    return op.verdict, op.actual


@pytest.fixture
def int8():
    model = with_weights(
        f"{MATMUL} {{ {QDQ} w = DequantizeLinear(w_q, w_qs) [mm] y = MatMul(xd, w) }}"
    )
    return planned_products(model)


@pytest.fixture
def residual():
    model = with_weights(f"{SUM} {{ {QDQ} a = Neg(xd) [sum] s = Add(a, xd) y = Neg(s) }}")
    return planned_products(model)


@pytest.fixture
def int4():
    model = with_weights(
        "g (float[8, 32] x, int4[32, 16] w_q, float[1, 16] w_s) => (float[8, 16] y) "
        "{ w = DequantizeLinear <axis = 0, block_size = 32> (w_q, w_s) [mm] y = MatMul(x, w) }",
    )
    return planned_products(model)


def test_what_is_planned(int8, residual, int4):
    assert [(op.node, op.precision) for op in (*int8, *residual, *int4)] == [
        ("mm", "int8"),
        ("sum", "int8"),
        ("mm", "int4 weights"),
    ]


@pytest.mark.parametrize(
    "nodes",
    ["s = Add(xd, xd) y = Neg(s)", "s = Add(x, x) y = Sub(s, xd)", "s = Add(x, xd) y = Neg(s)"],
)
def test_other_sums_are_not_planned(nodes):
    assert planned_products(with_weights(f"{SUM} {{ {QDQ} {nodes} }}")) == []


@pytest.mark.parametrize(
    ("between", "planned"),
    [
        ("w = Transpose (wd)", 1),
        ("w = Identity (wd)", 1),
        ("w = Mul (wd, w_s)", 1),
        ("w = Relu (wd)", 1),
        ("w = Softmax (wd)", 0),
    ],
)
def test_what_may_stand_between_codes_and_product(between, planned):
    model = with_weights(
        "g (float[8, 32] x, float w_s, int8 w_z, int8[32, 32] w_q, float[32] w_qs) "
        f"=> (float[8, 32] y) {{ {QDQ} wd = DequantizeLinear(w_q, w_qs) {between} "
        "y = MatMul(xd, w) }"
    )
    assert len(planned_products(model)) == planned


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (layer("a", "gemm", ["Int8"], ["Int8", "Float"], ["mm"]), ("proven", "int8")),
        (layer("a", "correlation", ["Int8", "Int8"], [], ["q", "mm"]), ("proven", "int8")),
        (layer("a", "gemm", ["Float"], ["Float"], ["mm"]), ("float", "float")),
        (layer("a", "gemm", ["Int8"], ["Float"], ["mm"]), ("float", "float")),
        (layer("a_Fc", "runtime_fusion", ["Int8"], ["Int8"], ["mm"]), ("float", "float")),
        (layer("a_CastMulSum", "kgen", ["Int8"], ["Int8"], ["mm"]), ("float", "float")),
        (layer("a", "gemm", ["Int8"], ["Int8"], ["other"]), ("unproven", "unknown")),
        (layer("a", "cast", ["Int8"], ["Int8"], ["mm"]), ("unproven", "unknown")),
        (layer("a", "gemm", ["Int8"], ["Int8"], ["mm2", "a/mm"]), ("unproven", "unknown")),
    ],
)
def test_static_int8(tmp_path, int8, found, expected):
    assert verdict(tmp_path, int8, found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (layer("a", "kgen", ["Float", "Int8"], [], ["sum"]), ("proven", "int8")),
        (layer("a", "kgen", ["Float", "Float"], [], ["sum"]), ("float", "float")),
        (layer("a", "kgen", ["Float", "Int8"], [], ["other"]), ("unproven", "unknown")),
    ],
)
def test_residual_sums(tmp_path, residual, found, expected):
    assert verdict(tmp_path, residual, found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            layer("Fc_myl", "runtime_fusion", ["Float"], ["Int4", "Float"], ["mm"]),
            ("proven", "int4 weights"),
        ),
        (layer("a", "gemm", ["Float"], ["Int4"], ["mm"]), ("proven", "int4 weights")),
        (layer("CastMulSum", "kgen", ["Float"], ["Int4"], ["mm"]), ("proven", "int4 weights")),
        (layer("CastMul", "kgen", ["Float"], ["Int4"], ["mm"]), ("unproven", "unknown")),
        (layer("a", "gemm", ["Float", "Float"], [], ["mm"]), ("float", "float")),
    ],
)
def test_weight_only_int4(tmp_path, int4, found, expected):
    assert verdict(tmp_path, int4, found) == expected


def test_one_proof_among_several_layers_counts(tmp_path, int8):
    assert verdict(
        tmp_path,
        int8,
        layer("quantize", "cast", ["Float"], [], ["mm"]),
        layer("a", "gemm", ["Int8"], ["Int8"], ["mm"]),
    ) == ("proven", "int8")


def test_summary(tmp_path, int8):
    log = tmp_path / "log"
    log.write_text(layer("a", "gemm", ["Float"], ["Float"], ["mm"]))
    attestation = attest(int8, read_layers(log))
    assert attestation.summary() == {"planned": 1, "proven": 0, "float": 1, "unproven": 0}
    assert attestation.to_json()["ops"][0]["evidence"] == "a: gemm (Float; constants Float)"
    assert attestation.failed == attestation.ops
