from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq import cpu, formats, targets
from onnxq.cpu import has_vnni

X86 = "processor\t: {}\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 {}\nbugs\t\t: mds\n\n"
ARM = "processor\t: {}\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd {}\n\n"


@pytest.mark.parametrize(
    ("form", "flag", "expected"),
    [
        (X86, "avx512_vnni", True),
        (X86, "avx_vnni", True),
        (X86, "avx512f", False),
        (X86, "avx512_vnni_like", False),
        (ARM, "asimddp", True),
        (ARM, "i8mm", True),
        (ARM, "crc32", False),
    ],
)
def test_the_flags_decide(tmp_path: Path, form: str, flag: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("".join(form.format(core, flag) for core in range(2)))
    assert has_vnni(file) is expected


def test_every_core_must_have_it(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(ARM.format(0, "asimddp") + ARM.format(1, "crc32"))
    assert not has_vnni(file)


def test_no_file_means_no(tmp_path: Path) -> None:
    assert not has_vnni(tmp_path / "missing")


def test_a_file_without_flags_means_no(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflag of the day : avx512_vnni\n")
    assert not has_vnni(file)


def pairs(name: str) -> st.SearchStrategy[tuple[int, int]]:
    codes = formats.get(name)
    code = st.integers(codes.qmin, codes.qmax)
    ends = st.sampled_from((codes.qmin, codes.qmax))
    return st.tuples(code | ends, code | ends)


def saturates(activations: tuple[int, int], weights: tuple[int, int]) -> bool:
    """Whether vpmaddubsw, which adds two products in 16 bits, loses part of the sum."""
    total = int(np.dot(activations, weights))
    limits = np.iinfo(np.int16)
    return not limits.min <= total <= limits.max


@given(data=st.data())
def test_two_products_fit_into_16_bits_without_vnni(data: st.DataObject) -> None:
    support = targets.get("ort-cpu").on_cpu(has_vnni=False).static()
    activations = data.draw(pairs(support.activations.format))
    assert not saturates(activations, data.draw(pairs(support.weights)))


@pytest.mark.parametrize("weight", [-128, -127, 127])
def test_two_products_with_8_bit_weights_do_not(weight: int) -> None:
    support = targets.get("ort-cpu").on_cpu(has_vnni=True).static()
    assert formats.get(support.weights).qmin <= weight <= formats.get(support.weights).qmax
    highest = formats.get(support.activations.format).qmax
    assert saturates((highest, highest), (weight, weight))


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("meant", [None, True, False])
@pytest.mark.parametrize(
    ("target", "preset"),
    [("ort-cpu", "int8"), ("ort-cpu", "int16-activations"), ("rtx-sm89", "int8")],
)
def test_accuracy_is_that_of_the_hardware_that_is_meant(target, preset, meant, here, monkeypatch):
    """Weights of 8 bits overflow here without VNNI: what they are meant for computes otherwise."""
    monkeypatch.setattr(cpu, "has_vnni", lambda: here)
    table = targets.get(target)
    has_seven_bits = target == "ort-cpu" and meant is False
    if has_seven_bits:
        table = table.on_cpu(has_vnni=False)
    assert cpu.is_meant(table, preset) == (preset != "int8" or here or has_seven_bits)
