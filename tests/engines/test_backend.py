"""The two TensorRT packages behind one interface."""

import enum
import types

import pytest

from onnxq.engines import backend
from onnxq.errors import EngineError, MissingPackageError


def test_a_missing_package_names_its_extra_and_where_it_is_served():
    with pytest.raises(MissingPackageError, match=r"onnxq\[tensorrt\].*pypi\.nvidia\.com.*rtx-"):
        backend.load("tensorrt")


def test_rtx_loads():
    assert backend.load("tensorrt_rtx").__name__ == "tensorrt_rtx"


def test_flags_go_by_name():
    class Flags(enum.IntEnum):
        STRONGLY_TYPED = 1

    assert backend.flag(Flags, "STRONGLY_TYPED") == 2
    assert backend.flag(Flags, "EXPLICIT_BATCH") == 0


def test_rtx_knows_its_hardware():
    trt = backend.load("tensorrt_rtx")
    with pytest.raises(EngineError, match="does not compile for SM 90"):
        backend.select_hardware(trt, types.SimpleNamespace(), 90)


@pytest.mark.parametrize(("present", "found"), [(None, "no GPU"), (80, "a GPU of SM 80")])
def test_tensorrt_builds_for_the_gpu_present(monkeypatch, present, found):
    monkeypatch.setattr(backend, "_present_compute_capability", lambda: present)
    with pytest.raises(EngineError, match=f"this machine has {found}; SM 90 was asked for"):
        backend.select_hardware(types.SimpleNamespace(), types.SimpleNamespace(), 90)


def test_tensorrt_builds_for_that_gpu(monkeypatch):
    monkeypatch.setattr(backend, "_present_compute_capability", lambda: 90)
    backend.select_hardware(types.SimpleNamespace(), types.SimpleNamespace(), 90)
