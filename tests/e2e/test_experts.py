"""Layers of experts, exported by torch, in 4 bits: for ONNX Runtime and in an engine."""

import experts
import pytest

import onnxq

KINDS = [experts.Batched, experts.Summed, experts.Sliced, experts.Separate]
PRODUCTS = {"Batched": 2, "Summed": 2, "Sliced": 16, "Separate": 24}  # and the router


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def exported(request, tmp_path_factory):
    """The name of a kind, and the file of a layer of it."""
    path = tmp_path_factory.mktemp("experts") / "layer.onnx"
    onnxq.save(experts.export(request.param), path)
    return request.param.__name__, path


def test_in_onnx_runtime(exported, tmp_path):
    name, path = exported
    test_data = experts.feeds(4, seed=9)
    found = {}
    for key, options in {"plain": {}, "data": {"calibration": experts.feeds(16)}}.items():
        result = onnxq.quantize(path, target="ort-cpu", preset="int4", **options)
        products = max(16, PRODUCTS[name])  # two for each expert at least
        assert result.report.counts()["int4"] == products + 1
        result.save(tmp_path / f"{key}.onnx")
        found[key] = onnxq.compare(path, tmp_path / f"{key}.onnx", test_data).min_sqnr_db
    bytes_ = result.report.weight_bytes
    assert bytes_["after"] < 0.17 * bytes_["before"]
    assert found["plain"] > 12
    assert found["data"] > found["plain"] + 2


def test_in_an_engine(exported, tmp_path):
    name, path = exported
    result = onnxq.quantize(path, target="rtx-sm89", preset="int4")
    assert result.report.counts()["int4"] == PRODUCTS[name] + 1
    engine = onnxq.build(
        result.model, tmp_path / "e", target="rtx-sm89", shapes={"x": "1x1x64:2x5x64:4x16x64"}
    )
    summary = engine.attestation.summary()
    assert (summary["planned"], summary["proven"]) == (PRODUCTS[name] + 1,) * 2
