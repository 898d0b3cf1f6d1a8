"""The tables of all targets: complete, each "no" with a reason, and the 12 that are promised."""

import pytest

from onnxq import formats, targets
from onnxq.errors import TargetError
from onnxq.inspection import targets_table
from onnxq.passes import lower
from onnxq.passes.plan import CANDIDATES
from onnxq.targets import DynamicSupport, No, StaticSupport, WeightOnlySupport
from onnxq.targets.base import OP_KINDS
from onnxq.types import PerTensor

PROMISED = {
    *("ort-cpu", "ort-cuda", "rtx-sm75", "rtx-sm86", "rtx-sm89", "rtx-sm120"),
    *("trt-sm80", "trt-sm86", "trt-sm89", "trt-sm90", "trt-sm100", "trt-sm120"),
}

every = pytest.mark.parametrize("target", targets.all_targets(), ids=lambda target: target.name)


def test_the_targets():
    assert sorted(PROMISED) == [target.name for target in targets.all_targets()]
    with pytest.raises(TargetError, match=r"Did you mean 'trt-sm89'|Did you mean 'rtx-sm89'"):
        targets.get("sm89")


@every
def test_a_name_says_backend_and_compute_capability(target):
    prefix, _, hardware = target.name.partition("-")
    backends = {"ort": "onnxruntime", "rtx": "tensorrt_rtx", "trt": "tensorrt"}
    assert target.backend == backends[prefix]
    assert target.builds_engines == (prefix != "ort")
    if target.builds_engines:
        assert hardware == f"sm{target.compute_capability}"
        assert target.provider is None
    else:
        assert target.provider == hardware
        assert target.compute_capability is None
    assert target.hardware
    assert target.evidence


@every
@pytest.mark.parametrize("preset", ["int8", "fp8", "int16-activations"])
def test_static_support(target, preset):
    found = getattr(target, preset.replace("-", "_"))
    if isinstance(found, No):
        assert found.reason
        assert found.instead
        with pytest.raises(TargetError, match=found.reason[:20]):
            target.static(preset)
        return
    support = target.static(preset)
    assert isinstance(support, StaticSupport)
    assert tuple(support.ops) == OP_KINDS
    assert all(each or each.reason for each in support.ops.values())
    assert all(each.reason for each in support.without_weights.values())
    assert not set(support.without_weights) & set(CANDIDATES)
    assert support.activations.granularity == PerTensor()
    activations, weights = (formats.get(f) for f in (support.activations.format, support.weights))
    if preset == "int16-activations":
        assert (activations.short, weights.short) == ("int16", "int8")
        assert "no faster than the float one" in support.warning
    else:
        assert {activations.short, weights.short} == {preset}
    assert support.opset >= max(activations.opset, weights.opset)
    if target.builds_engines:
        assert support.activations.symmetric
        assert not support.int32_bias
        assert not target.depends_on_vnni(preset)


def test_cpus_with_vnni_and_without():
    target = targets.get("ort-cpu")
    assert target.depends_on_vnni("int8")
    assert target.depends_on_vnni("int8-dynamic")
    assert not target.depends_on_vnni("int4")
    assert (target.runs_on, target.cpu_has_vnni) == ("", None)
    found = {vnni: target.on_cpu(has_vnni=vnni) for vnni in (True, False)}
    assert {vnni: each.static().weights for vnni, each in found.items()} == {
        True: "int8",
        False: "int7",
    }
    assert "quantize again for those with --no-cpu-has-vnni" in found[True].runs_on
    assert found[False].runs_on.startswith("any CPU")
    for each in found.values():
        assert each.static().activations == target.static().activations
        assert each.dynamic().weights == each.static().weights
        assert each.int4 == target.int4


@every
def test_fp8_is_for_engines_of_sm89_and_newer(target):
    assert isinstance(target.fp8, StaticSupport) == ((target.compute_capability or 0) >= 89)


@every
def test_16_bit_activations_are_for_onnx_runtime_on_cpus(target):
    assert isinstance(target.int16_activations, StaticSupport) == (target.name == "ort-cpu")


@every
def test_dynamic_support(target):
    assert isinstance(target.int8_dynamic, DynamicSupport) == (target.name == "ort-cpu")
    if isinstance(target.int8_dynamic, No):
        assert target.int8_dynamic.instead
        with pytest.raises(TargetError, match=target.int8_dynamic.reason[:20]):
            target.dynamic()
        return
    support = target.dynamic()
    assert set(support.lowerings) == set(CANDIDATES) - {"MoE"}  # which int4 alone has
    forms = support.lowerings.values()
    assert all(form.reason if isinstance(form, No) else lower.opset(form) for form in forms)


@every
def test_weight_only_support(target):
    if isinstance(target.int4, No):
        assert target.int4.reason
        assert target.int4.instead
        with pytest.raises(TargetError, match=target.int4.reason[:20]):
            target.weight_only()
        return
    support = target.weight_only()
    assert isinstance(support, WeightOnlySupport)
    assert lower.opset(support.lowering)
    assert set(support.block_sizes) <= {16, 32, 64, 128, 256}
    if target.builds_engines:
        assert not support.zero_points


def test_the_printed_table():
    rows = {row["target"]: row for row in targets_table()}
    assert set(rows) == PROMISED
    assert all(value for row in rows.values() for value in row.values())
    assert "conv" in rows["rtx-sm89"]["int8"]
    assert rows["ort-cuda"]["int8"].startswith("no")
    assert "matmul" in rows["rtx-sm89"]["fp8"]
    assert rows["rtx-sm86"]["fp8"] == "no"
    assert rows["ort-cpu"]["int8-dynamic"] == "Gather, Gemm, LSTM, MatMul"
    assert rows["rtx-sm89"]["int8-dynamic"].startswith("no: TensorRT does not import")
