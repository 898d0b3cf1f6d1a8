"""Finding plugins by name: built in, or of third parties through entry points."""

import sys
from importlib.metadata import EntryPoint

import pytest
from graphs import with_weights

import onnxq
from onnxq import registry
from onnxq.errors import RecipeError, TargetError
from onnxq.passes.weights import rtn

GROUPS = {
    "onnxq.formats": "FORMAT",
    "onnxq.observers": "OBSERVER",
    "onnxq.targets": "TARGET",
    "onnxq.passes.weights": "ALGORITHM",
    "onnxq.passes.lower": "LOWERING",
    "onnxq.passes.qdq.rules": "RULE",
}


@pytest.fixture
def third_party(monkeypatch, tmp_path):
    """Registers name = "module:attribute" in a group, as an installed package would."""

    def register(group, **points):
        found = {name: EntryPoint(name, value, group) for name, value in points.items()}
        real = registry._third_party
        monkeypatch.setattr(
            registry, "_third_party", lambda asked: found if asked == group else real(asked)
        )

    monkeypatch.syspath_prepend(tmp_path)
    return register


@pytest.mark.parametrize(("group", "attribute"), GROUPS.items())
def test_every_built_in_defines_what_is_agreed(group, attribute):
    names = registry.names(group)
    assert names == sorted(names)
    assert names
    for name in names:
        assert registry.load(group, name, attribute, RecipeError) is not None


def test_names_have_no_underscores_and_helpers_are_hidden():
    assert "rtx-sm89" in registry.names("onnxq.targets")
    assert not any("_" in name or name == "base" for g in GROUPS for name in registry.names(g))


@pytest.mark.parametrize(
    ("group", "name", "says"),
    [
        ("onnxq.targets", "rtx-sm98", r"no target 'rtx-sm98'\. Did you mean 'rtx-sm89'"),
        ("onnxq.targets", "xyz", r"no target 'xyz'\. Known: ort-cpu, ort-cuda"),
        ("onnxq.observers", "min-max", r"no observer 'min-max'\. Did you mean 'minmax'"),
    ],
)
def test_unknown_names(group, name, says):
    with pytest.raises(TargetError, match=says):
        registry.load(group, name, "X", TargetError)


def test_a_weight_algorithm_of_a_third_party(third_party, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from onnxq.passes.weights.rtn import quantize as half_up\n", encoding="utf-8"
    )
    third_party("onnxq.passes.weights", mine="mine:half_up")
    model = with_weights("g (float[2, 64] x, float[64, 8] w) => (float[2, 8] y) "
                         "{ y = MatMul(x, w) }")  # fmt: skip
    result = onnxq.quantize(
        model, preset="int4", target="ort-cpu", recipe={"weights": {"algorithm": "mine"}}
    )
    assert "mine" in result.report.decisions[0].reason
    assert sys.modules["mine"].half_up is rtn.quantize


def test_two_of_one_name(third_party):
    third_party("onnxq.passes.weights", rtn="mine:quantize")
    with pytest.raises(RecipeError, match=r"Two weights are named 'rtn'.*mine:quantize"):
        registry.load("onnxq.passes.weights", "rtn", "ALGORITHM", RecipeError)


def test_a_plugin_that_cannot_be_imported(third_party, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_like_that\n", encoding="utf-8")
    third_party("onnxq.targets", broken="broken:TARGET")
    with pytest.raises(TargetError, match=r"plugin 'broken' \(broken:TARGET\).*nothing_like"):
        registry.load("onnxq.targets", "broken", "TARGET", TargetError)


def test_entry_points_of_installed_packages_are_asked_for():
    assert registry._third_party("console_scripts")["onnxq"].value == "onnxq.cli:main"
