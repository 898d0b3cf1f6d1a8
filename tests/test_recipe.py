"""Recipes are strict, and the last word of several is well defined."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onnxq import Recipe
from onnxq.errors import RecipeError
from onnxq.recipe import PRESETS, preset, resolve

TEXT = """
preset: int4
exclude: ["lm_head*"]
weights: {block_size: 64, symmetric: true}
rules:
  - match: "*/mlp/down_proj/*"
    weights: {block_size: 16}
  - match: "*/layers.0/*"
    keep_float: true
"""


def test_presets():
    assert set(PRESETS) == {"int8", "fp8", "int16-activations", "int8-dynamic", "int4"}
    assert resolve("fp8").weights.algorithm == "mse"
    assert resolve("int4").weights.block_size == 32
    assert preset("int8").activations.min_op_sqnr == 20
    with pytest.raises(RecipeError, match=r"no preset 'int5'\. Did you mean 'int"):
        preset("int5")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file(tmp_path, suffix):
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(TEXT if suffix == "yaml" else json.dumps(yaml.safe_load(TEXT)))
    found = resolve(recipe=path)
    assert found == resolve("int4", yaml.safe_load(TEXT)) == resolve(recipe=str(path))
    assert found.ops == ("Gather", "Gemm", "MatMul", "MoE")
    assert found.weights.block_size == 64
    assert found.weights.algorithm == "auto"
    assert found.weights_of("a/mlp/down_proj/b").block_size == 16
    assert found.weights_of("a/mlp/down_proj/b").symmetric is True
    assert found.float_pattern("m/layers.0/mlp/down_proj/x") == "*/layers.0/*"
    assert found.float_pattern("lm_head/MatMul") == "lm_head*"
    assert found.float_pattern("other") is None


def test_a_recipe_object_only_changes_what_it_sets():
    changed = PRESETS["int4"].model_copy(update={"exclude": ("a",)})
    assert resolve(recipe=changed, exclude=("b",)).exclude == ("a", "b")


def test_activations_are_merged_with_those_of_the_preset():
    found = resolve("int8", {"activations": {"min_op_sqnr": None}})
    assert found.activations.min_op_sqnr is None
    assert found.activations.observer == "auto"


def test_patterns_are_case_sensitive():
    assert resolve("int8", exclude=("Conv*",)).float_pattern("conv1") is None


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({}, "Neither a preset nor a recipe"),
        ({"preset": "int9"}, "no preset 'int9'"),
        ({"preset": "int8", "colour": 1}, "colour: Extra inputs"),
        ({"preset": "int4", "weights": {"block_size": 33}}, "weights.block_size.*multiple of 16"),
        ({"preset": "int4", "weights": {"block_size": 0}}, "weights.block_size"),
        ({"preset": "int4", "weights": {"block_size": "automatic"}}, "weights.block_size"),
        ({"preset": "int4", "weights": {"bits": 3}}, "weights.bits: .*2, 4, 8, 'auto' or 'nf4'"),
        ({"preset": "int8", "weights": {"bits": 8}}, "leave out bits"),
        ({"preset": "fp8", "weights": {"block_size": 32}}, "preset fp8 .*leave out block_size"),
        (
            {"preset": "int8", "weights": {"float_zero_points": True}},
            "leave out float_zero_points",
        ),
        (
            {"preset": "int4", "weights": {"float_zero_points": True, "symmetric": True}},
            "symmetric weights have no zero points to be float",
        ),
        (
            {
                "preset": "int4",
                "weights": {"symmetric": True},
                "rules": [{"match": "a", "weights": {"float_zero_points": True}}],
            },
            "symmetric weights have no zero points to be float",
        ),
        ({"preset": "int4", "weights": {"size": 32}}, "weights.size: Extra inputs"),
        ({"preset": "int4", "recovery": None}, "int4 calibrates no activations"),
        ({"preset": "int4", "activations": {"min_op_sqnr": 3}}, "int4 calibrates no activations"),
        ({"preset": "int8-dynamic", "recovery": None}, "int8-dynamic calibrates no activations"),
        ({"preset": "int8-dynamic", "weights": {"bits": 8}}, "leave out bits"),
        ({"preset": "int4", "activation_dtype": "fp8"}, "activation_dtype: .*'fp16' or 'bf16'"),
        ({"preset": "fp8", "activation_dtype": "fp16"}, "leave out activation_dtype"),
        ({"preset": "int8", "rotate": True}, "rotates nothing: leave out rotate"),
        ({"preset": "int4", "ops": ["Conv"]}, "int4 quantizes Gather, Gemm, MatMul, MoE only"),
        (
            {"preset": "int8", "ops": ["LSTM"]},
            "int8 quantizes Conv, ConvTranspose, Gather, Gemm, MatMul",
        ),
        ({"preset": "int8", "ops": ["Softmax"]}, "ops.0"),
        ({"preset": "int8", "weights": {"block_size": 32}}, "leave out block_size"),
        ({"preset": "int8", "weights": {"symmetric": False}}, "leave out symmetric"),
        ({"preset": "int8", "rules": [{"match": "*"}]}, "either keep_float: true or weights"),
        (
            {"preset": "int8", "rules": [{"match": "*", "keep_float": True, "weights": {}}]},
            "either keep_float: true or weights",
        ),
        ({"preset": "int8", "rules": [{"keep_float": True}]}, "rules.0.match: Field required"),
    ],
)
def test_wrong_recipes(recipe, says):
    with pytest.raises(RecipeError, match=says):
        resolve(recipe=recipe)


def test_a_preset_and_a_recipe_that_contradict_each_other():
    with pytest.raises(RecipeError, match="preset is 'int8', and the recipe says 'int4'"):
        resolve("int8", {"preset": "int4"})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.yaml", None, "cannot be read"),
        ("list.yaml", "- a\n- b\n", "not a mapping of fields"),
        ("bad.yaml", "a: [", "is not valid"),
        ("bad.json", "{", "is not valid"),
        ("binary.yaml", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=says) as failure:
        resolve(recipe=path)
    assert "\n" not in str(failure.value)


WEIGHTS = st.fixed_dictionaries(
    {}, optional={"block_size": st.sampled_from([16, 32, 64]), "symmetric": st.booleans()}
)


@given(
    weights=WEIGHTS,
    rules=st.lists(
        st.fixed_dictionaries({"match": st.sampled_from(["a", "*"]), "weights": WEIGHTS})
    ),
)
def test_the_last_rule_that_matches_counts(weights, rules):
    found = resolve("int4", {"weights": weights, "rules": rules}).weights_of("a")
    expected = {"block_size": 32, "symmetric": None} | weights
    expected |= rules[-1]["weights"] if rules else {}
    assert found.model_dump(include={"block_size", "symmetric"}) == expected


def test_a_recipe_survives_json():
    found = resolve("int4", yaml.safe_load(TEXT))
    assert Recipe.model_validate_json(found.model_dump_json()) == found


def test_a_name_of_a_weight_is_as_good_as_that_of_its_node():
    rules = [{"match": "*gate*", "weights": {"bits": 8}}, {"match": "n2", "keep_float": True}]
    found = resolve("int4", {"rules": rules}, exclude=("*lm_head*",))
    assert found.float_pattern("n1", "model.lm_head.weight") == "*lm_head*"
    assert found.float_pattern("n2", "other") == "n2"
    assert found.float_pattern("n1", "other") is None
    assert found.weights_of("n1", "mlp.gate.weight").bits == 8
    assert found.weights_of("n1", "mlp.up.weight").bits == 4


def test_nf4_is_for_algorithms_that_know_it():
    found = resolve("int4", bits="nf4")
    assert (found.weights.bits, found.weights.algorithm) == ("nf4", "auto")
    with pytest.raises(RecipeError, match="gptq finds no codes of nf4"):
        resolve("int4", bits="nf4", has_data=True)
    with pytest.raises(RecipeError, match="hqq finds no codes of nf4"):
        resolve("int4", {"rules": [{"match": "a", "weights": {"bits": "nf4", "algorithm": "hqq"}}]})
    with pytest.raises(RecipeError, match="preset int8 has weights of 8 bits"):
        resolve("int8", bits="nf4")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"symmetric": False}, "nf4 has no zero points"),
        ({"float_zero_points": True}, "nf4 has no zero points"),
        ({"accuracy_level": 4}, "no accuracy_level"),
    ],
)
def test_nf4_has_scales_alone(fields, message):
    with pytest.raises(RecipeError, match=message):
        resolve("int4", {"weights": {"bits": "nf4"} | fields})


def test_codebooks_that_are_refused():
    with pytest.raises(RecipeError, match="fp4 has more error than nf4"):
        resolve("int4", bits="fp4")
    with pytest.raises(RecipeError, match="no runtime looks up rows of nf4"):
        resolve("int4", {"tables": {"bits": "nf4"}})


def test_accuracy_levels_are_for_int4():
    assert resolve("int4", {"weights": {"accuracy_level": 4}}).weights.accuracy_level == 4
    with pytest.raises(RecipeError, match="accuracy_level"):
        resolve("int4", {"weights": {"accuracy_level": 3}})
    with pytest.raises(RecipeError, match="preset int8 has no accuracy_level"):
        resolve("int8", {"weights": {"accuracy_level": 4}})


@pytest.mark.parametrize(
    ("recipe", "given"),
    [({"exclude": "*lm_head*"}, ()), ({}, "*lm_head*"), ({"exclude": ["*lm_head*"]}, ())],
)
def test_one_pattern_is_no_list_of_letters(recipe, given):
    assert resolve("int4", recipe, given).exclude == ("*lm_head*",)


@pytest.mark.parametrize("wrong", [5, ["int4"]])
def test_what_is_no_preset(wrong):
    with pytest.raises(RecipeError, match=r"preset: .* is no name\. Choose a preset: int8"):
        resolve(None, {"preset": wrong})


@pytest.mark.parametrize("wrong", [None, 5])
def test_what_is_no_pattern(wrong):
    with pytest.raises(RecipeError, match=f"exclude: {wrong} is no pattern of names"):
        resolve("int4", {"exclude": wrong})
