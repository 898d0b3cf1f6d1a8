"""Loading models into ONNX Runtime, and saying why not."""

import builtins
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from graphs import with_weights

from onnxq import io, runtime
from onnxq.cpu import has_vnni
from onnxq.errors import DataError, MissingPackageError, ModelError, OnnxqError
from onnxq.weightfile import WeightInFile

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[n, 2] x) => (float[n, 2] y) <float[2] w = {1.0, 2.0}> { y = Add(x, w) }
"""
X = np.zeros((3, 2), np.float32)


@pytest.fixture
def model():
    return ir.from_onnx_text(TEXT)


def result(session):
    (y,) = runtime.run(session, ["y"], {"x": X}, "a feed")
    return y[0].tolist()


@pytest.mark.parametrize("flags", [{}, {"optimize": False}, {"memory_flat": True}])
def test_models_and_paths(model, tmp_path, flags):
    ir.save(model, tmp_path / "m.onnx")
    assert result(runtime.session(model, **flags)) == [1, 2]
    assert result(runtime.session(tmp_path / "m.onnx", **flags)) == [1, 2]
    assert result(runtime.session(str(tmp_path / "m.onnx"), **flags)) == [1, 2]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The models that passed through a temporary folder, of which nothing is left."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    made = []
    real = runtime._copied
    monkeypatch.setattr(runtime, "_copied", lambda model: made.append(model) or real(model))
    yield made
    assert list(folder.iterdir()) == []


def test_weights_in_files_stay_there(model, tmp_path, temporary):
    path = tmp_path / "m.onnx"
    ir.save(model, path, external_data="m.data", size_threshold_bytes=0)
    loaded = ir.load(path)
    assert isinstance(loaded.graph.initializers["w"].const_value, ir.ExternalTensor)
    assert result(runtime.session(loaded)) == [1, 2]
    assert result(runtime.session(path)) == [1, 2]
    assert temporary == []


def test_weights_in_the_model_file_stay_there(tmp_path, temporary, monkeypatch):
    weight = np.arange(2048, dtype=np.float32)
    model = ir.from_onnx_text(TEXT.replace("2]", "2048]").replace("{1.0, 2.0}", "{0.0}"))
    model.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
    ir.save(model, tmp_path / "m.onnx")
    loaded = io.load(tmp_path / "m.onnx")
    monkeypatch.chdir("/")
    session = runtime.session(loaded)
    (y,) = runtime.run(session, ["y"], {"x": np.zeros((1, 2048), np.float32)}, "a feed")
    np.testing.assert_array_equal(y[0], weight)
    assert isinstance(loaded.graph.initializers["w"].const_value, WeightInFile)
    assert temporary == []


def test_weights_in_several_folders_pass_through_a_temporary_one(tmp_path, temporary):
    model = ir.from_onnx_text(
        TEXT.replace(" Add(x, w)", " Add(v, w)").replace("}>", "}, float[2] v = {0.0, 0.0}>")
    )
    for name in ("v", "w"):
        (tmp_path / name).mkdir()
        np.array([3, 4], "<f4").tofile(tmp_path / name / "data")
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            "data",
            0,
            8,
            ir.DataType.FLOAT,
            shape=ir.Shape([2]),
            name=name,
            base_dir=tmp_path / name,
        )
    assert runtime.session(model).run(None, {"x": X})[0].tolist() == [6, 8]
    assert len(temporary) == 1


def test_big_models_pass_through_a_temporary_folder(model, monkeypatch, temporary):
    monkeypatch.setattr(runtime, "_PROTOBUF_SAFE_BYTES", 4)
    model.graph.initializers["w"].const_value = ir.Tensor(np.array([3, 4], np.float32), name="w")
    assert result(runtime.session(model)) == [3, 4]
    assert len(temporary) == 1


def test_refused_models(model, tmp_path):
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"cannot load .*m\.onnx: .*Protobuf parsing failed") as e:
        runtime.session(tmp_path / "m.onnx", optimize=False)
    assert "\n" not in str(e.value)
    with pytest.raises(ModelError, match=r"m\.onnx' is not an ONNX model"):
        runtime.session(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"There is no file .*none\.onnx"):
        runtime.session(tmp_path / "none.onnx")
    model.graph.node(0).op_type = "Ad"
    with pytest.raises(ModelError, match=r"cannot load the model: .*Ad"):
        runtime.session(model)


FLOAT8 = """
<ir_version: 10, opset_import: ["" : 19]>
g (float[n, 2] x) => (float[n, 2] y) <float one = {{1.0}}> {{
    a = Relu(x)
    {zero}
    q = QuantizeLinear(a, one, zero)
    y = DequantizeLinear(q, one, zero)
}}
"""


@pytest.mark.parametrize("form", ["initializer", "Constant", "Cast"])
@pytest.mark.parametrize("is_path", [False, True])
def test_a_relu_before_float8_is_computed(form, is_path, tmp_path):
    """ONNX Runtime takes the zero point for the lowest code, and would drop the Relu."""
    made = "zero = Cast <to = 17> (nil)" if form == "Cast" else "zero = Identity(z)"
    model = ir.from_onnx_text(FLOAT8.format(zero=made))
    zero = ir.Tensor(np.zeros((), ml_dtypes.float8_e4m3fn), ir.DataType.FLOAT8E4M3FN, name="z")
    identity = next(node for node in model.graph if node.op_type in ("Identity", "Cast"))
    if form == "Constant":
        constant = ir.node("Constant", [], attributes={"value": zero})
        model.graph.insert_before(identity, constant)
        identity.replace_input_with(0, constant.outputs[0])
    else:
        given = zero if form == "initializer" else ir.Tensor(np.zeros((), np.float32), name="nil")
        value = ir.Value(name=given.name, const_value=given)
        model.graph.register_initializer(value)
        identity.replace_input_with(0, value)
    if is_path:
        ir.save(model, tmp_path / "m.onnx")
    session = runtime.session(tmp_path / "m.onnx" if is_path else model)
    (y,) = runtime.run(session, ["y"], {"x": np.array([[-2, 2]], np.float32)}, "a feed")
    assert y.tolist() == [[0, 2]]


def test_a_feed_that_fails_is_told_once(model, capfd):
    with pytest.raises(DataError, match=r"does not run on feed 3 \(x float32\[3\]\): "):
        runtime.run(runtime.session(model), ["y"], {"x": X[:, 0]}, "feed 3")
    assert capfd.readouterr().err == ""


def test_providers(model):
    import onnxruntime as ort

    with pytest.raises(OnnxqError, match=r"'tpu' is not available; .* has: .*cpu"):
        runtime.session(model, provider="tpu")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        with pytest.raises(OnnxqError, match=r"'cuda' is not available.*onnxq\[gpu\]"):
            runtime.session(model, provider="cuda")


def test_no_onnx_runtime(model, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingPackageError, match=r"onnxq\[cpu\].*onnxq\[gpu\]"):
        runtime.session(model)


def test_it_is_imported_late():
    code = "import sys, onnxq.runtime, onnxq.calib.runner; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_floats_are_fitted_to_what_a_model_takes():
    graph = "g (float16[2] x, int64[2] i, float[2] z) => (float16[2] y) { y = Neg(x) }"
    session = runtime.session(with_weights(graph))
    feed = {"x": np.ones(2, np.float32), "i": np.ones(2, np.int64), "z": np.ones(2, np.float32)}
    fitted = runtime.fitted(session, feed)
    assert [array.dtype for array in fitted.values()] == [np.float16, np.int64, np.float32]
    assert fitted["z"] is feed["z"]
    assert feed["x"].dtype == np.float32


@pytest.mark.parametrize("fuses", [True, False])
def test_ops_between_qdq_run_in_float_if_they_shall(fuses):
    """Two products of 255 and 127 do not fit into the 16 bits of CPUs without VNNI."""
    text = """
        g (float[1, 64] x, float ws, uint8 wz, int8[64, 4] wq) => (float[1, 4] y) {
            c = QuantizeLinear(x, ws, wz)
            a = DequantizeLinear(c, ws, wz)
            b = DequantizeLinear(wq, ws)
            y = MatMul(a, b)
        }
        """
    model = with_weights(text, ws=np.ones(()), wz=np.zeros(()), wq=np.full((64, 4), 127))
    feed = {"x": np.full((1, 64), 255, np.float32)}
    (y,) = runtime.session(model, fuse_qdq=fuses).run(None, feed)
    exact = 64 * 255 * 127
    assert (y == exact).all() or (fuses and not has_vnni())
