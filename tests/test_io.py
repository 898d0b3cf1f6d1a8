"""Loading and saving: nothing partial, nothing overwritten, nothing outside the model's folder."""

import errno
import os
import re
import resource
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import compute, random_feed, with_weights

import onnxq
from onnxq import io, runtime
from onnxq.errors import ModelError, OutputError, RecipeError

GRAPH = "g (float[2, 64] x, float[64, 64] w) => (float[2, 64] y) { y = MatMul(x, w) }"


@pytest.fixture
def model():
    return with_weights(GRAPH)


@pytest.fixture
def path(model, tmp_path):
    onnxq.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def external(model, tmp_path):
    onnxq.save(model, tmp_path / "external.onnx", external_data=True)
    return tmp_path / "external.onnx"


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def same(a, b):
    feed = random_feed(a)
    np.testing.assert_array_equal(compute(a, **feed), compute(b, **feed))


def test_a_model_in_any_form_is_loaded(model, path):
    same(model, io.load(path))
    same(model, io.load(str(path)))
    same(model, io.load(model))
    same(model, io.load(onnx.load(path)))


def test_what_torch_exports_is_loaded():
    import torch

    torch.manual_seed(0)  # sums near 0 agree to fewer digits
    layer = torch.nn.Linear(8, 4).eval()
    x = torch.randn(2, 8)
    program = torch.onnx.export(layer, (x,), dynamo=True, input_names=["x"], verbose=False)
    (found,) = compute(io.load(program), x=x.numpy())
    np.testing.assert_allclose(found, layer(x).detach().numpy(), rtol=1e-5)


def test_a_loaded_model_is_independent_of_what_it_was_loaded_from(model):
    own = io.load(model)
    own.graph.initializers["w"].name = "renamed"
    own.graph[0].name = "renamed"
    assert list(model.graph.initializers) == ["w"]
    assert model.graph.initializers["w"].const_value.name == "w"


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ModelError, match="There is no file"):
        io.load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        io.load(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"not an ONNX model, or it is cut short|not a valid ONNX"):
        io.load(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am text\n" * 9, b"\x00" * 64, b"\x08\x07"])
def test_a_file_of_something_else(tmp_path, content):
    (tmp_path / "text.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="ONNX"):
        io.load(tmp_path / "text.onnx")


def test_a_tensor_whose_bytes_do_not_fit_its_shape(path):
    proto = onnx.load(path)
    proto.graph.initializer[0].raw_data = b"\0" * 10
    with pytest.raises(ModelError, match=r"weight 'w' .* holds 10 bytes; .* \[64,64\] .* 16384"):
        io.load(proto)


def test_external_data_is_read_where_it_is(external, model):
    same(model, io.load(external))
    assert io.data_files(io.load(external)) == [external.with_name("external.onnx.data")]


def test_external_data_is_found_from_another_working_folder(external, model, monkeypatch):
    monkeypatch.chdir(external.parent)
    loaded = io.load("external.onnx")
    monkeypatch.chdir("/")
    same(model, loaded)


def test_missing_external_data(external):
    external.with_name("external.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"weight 'w'.*'external.onnx.data', which does not exist"):
        io.load(external)


def test_external_data_cut_short(external):
    data = external.with_name("external.onnx.data")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"ends at byte 16383; the weight needs bytes up to 16384"):
        io.load(external)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "a/../../secret"])
def test_external_data_outside_the_folder(external, location):
    proto = onnx.load(external, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        io.load(external)


def test_a_cache_that_links_to_its_blobs(external, model, tmp_path):
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for name in ("external.onnx", "external.onnx.data"):
        blob = tmp_path / f"blob-{name}"
        (tmp_path / name).rename(blob)
        (cache / name).symlink_to(blob)
    same(model, io.load(cache / "external.onnx"))


def test_external_data_in_a_branch_is_checked_too(tmp_path):
    nested = with_weights(
        "g (bool c, float[512] x) => (float[512] y) { y = If (c) < "
        "then_branch = t () => (float[512] a) { a = Relu(x) }, "
        "else_branch = e () => (float[512] b) { b = Neg(x) } > }"
    )
    branch = nested.graph[0].attributes["then_branch"].as_graph()
    tensor = ir.ExternalTensor(
        "none.data", 0, 2048, ir.DataType.FLOAT, shape=ir.Shape([512]), name="k"
    )
    branch.register_initializer(ir.Value(name="k", const_value=tensor))
    (tmp_path / "m.onnx").write_bytes(ir.to_proto(nested).SerializeToString())
    with pytest.raises(ModelError, match=r"'k'.*does not exist"):
        io.load(tmp_path / "m.onnx")


def test_saving_leaves_one_file(path, tmp_path):
    assert files(tmp_path) == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)


def test_saving_beside(external, tmp_path):
    assert files(tmp_path) == ["external.onnx", "external.onnx.data"]
    assert external.stat().st_size < 1000
    assert external.with_name("external.onnx.data").stat().st_size == 64 * 64 * 4


def test_large_models_are_saved_beside(model, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "SINGLE_FILE_LIMIT", 1000)
    onnxq.save(model, tmp_path / "m.onnx")
    assert files(tmp_path) == ["m.onnx", "m.onnx.data"]


def test_weights_may_move_from_one_layout_to_the_other(external, model, tmp_path):
    onnxq.save(io.load(external), tmp_path / "inside.onnx")
    external.with_name("external.onnx.data").unlink()
    same(model, io.load(tmp_path / "inside.onnx"))


def test_an_existing_output_is_replaced(path, tmp_path):
    (tmp_path / "out.onnx").write_text("old")
    onnxq.save(io.load(path), tmp_path / "out.onnx")
    assert io.load(tmp_path / "out.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "./model.onnx", "link.onnx"])
def test_an_input_is_never_overwritten(path, name, monkeypatch):
    monkeypatch.chdir(path.parent)
    Path("link.onnx").symlink_to("model.onnx")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="would overwrite the input"):
        onnxq.save(io.load(path), name)
    assert path.read_bytes() == before


def test_data_of_an_input_is_never_overwritten(external):
    model = io.load(external.rename(external.with_name("other.onnx")))
    with pytest.raises(OutputError, match=re.escape("external.onnx.data")):
        onnxq.save(model, external, external_data=True)


def test_a_check_that_fails_leaves_nothing(model, tmp_path):
    def check(file):
        assert file.is_file()
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        io.save(model, tmp_path / "m.onnx", check=check)
    assert files(tmp_path) == []


def test_a_large_file_is_checked_by_its_outline(model, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "_LARGE", 1000)
    seen = []

    def check(file):
        seen.append((file.name, file.stat().st_size))
        same(model, io.load(file))

    io.save(model, tmp_path / "m.onnx", check=check)
    assert seen[0][0] == "outline-of-m.onnx"
    assert seen[0][1] < 1000
    assert files(tmp_path) == ["m.onnx"]


def test_a_weight_that_fails_leaves_nothing(model, tmp_path):
    def fail():
        raise ModelError("The weight 'w' holds NaN.")

    shape = ir.Shape([64, 64])
    model.graph.initializers["w"].const_value = ir.LazyTensor(fail, ir.DataType.FLOAT, shape)
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(ModelError, match="holds NaN"):
        onnxq.save(model, tmp_path / "m.onnx")
    assert files(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "old"


def test_shards_are_read_and_not_overwritten(tmp_path):
    graph = "g (float[n, 64] x, float[64, 64] w, float[64, 64] w2) => (float[n, 64] y) "
    model = with_weights(graph + "{ h = MatMul(x, w) y = MatMul(h, w2) }")
    onnxq.save(model, tmp_path / "m.onnx", shard_size="20kB")
    assert files(tmp_path) == ["m.onnx", "m.onnx.data-00001-of-00002", "m.onnx.data-00002-of-00002"]
    again = onnxq.load(tmp_path / "m.onnx")
    assert [file.name for file in io.data_files(again)] == files(tmp_path)[1:]
    feed = {"x": np.ones((2, 64), np.float32)}
    session = runtime.session(tmp_path / "m.onnx")
    np.testing.assert_array_equal(session.run(None, feed)[0], compute(model, **feed)[0])
    with pytest.raises(OutputError, match=r"would overwrite the input file .*m\.onnx"):
        onnxq.save(again, tmp_path / "m.onnx", shard_size="20kB")
    with pytest.raises(RecipeError, match="The size of a shard is 'big'"):
        onnxq.save(model, tmp_path / "n.onnx", shard_size="big")


def test_an_interruption_leaves_nothing(model, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        io.save(model, tmp_path / "m.onnx", on_weight=interrupt)
    assert files(tmp_path) == []


def test_too_little_space_is_found_before_writing(model, tmp_path, monkeypatch):
    usage = io.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(io.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(OutputError, match="needs 0 MB, and its disk has 0 MB free"):
        onnxq.save(model, tmp_path / "m.onnx")


def test_a_disk_that_fills_up(model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be written: File too large"):
            onnxq.save(model, tmp_path / "m.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == []


def test_no_space_left_is_called_a_full_disk(tmp_path):
    with pytest.raises(OutputError, match="the disk is full"), io.staging(tmp_path / "m.onnx"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "is a folder"), ("no/m.onnx", "There is no folder"), ("/proc/m", "is not writable")],
)
def test_outputs_that_cannot_be(model, tmp_path, name, says):
    with pytest.raises(OutputError, match=says):
        onnxq.save(model, tmp_path / name)
