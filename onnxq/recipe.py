"""A recipe: what is to be quantized, to what, and what is left alone.

A recipe is a preset, changed where the user says so. It is strict: an unknown key is an error.

    preset: int4
    exclude: ["lm_head*"]
    weights: {block_size: 64, symmetric: true}
    rules:
      - match: "*/mlp/down_proj/*"
        weights: {block_size: 16}
      - match: "*/layers.0/*"
        keep_float: true
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from onnxq.errors import RecipeError

OpType: TypeAlias = Literal[
    "Conv", "ConvTranspose", "Gather", "Gemm", "GRU", "LSTM", "MatMul", "MoE", "RNN"
]
Preset: TypeAlias = Literal["int8", "fp8", "int16-activations", "int8-dynamic", "int4"]
ActivationType: TypeAlias = Literal["fp32", "fp16", "bf16"]
BlockSize: TypeAlias = Annotated[int, Field(ge=16, multiple_of=16)]


WITH_DATA = "gptq"  # the algorithm of preset int4 if there is calibration data
_OF_CODEBOOKS = ("auto", "mse", "rtn")  # the algorithms that find codes of nf4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """How weights become codes.

    Attributes:
        bits: Of a code; for preset int4 only, whose default is 4; "auto" for what does least damage
            within the recipe's budget; "nf4" for codes of 4 bits that stand for the values of a
            codebook.
        block_size: Consecutive weights along the reduced axis that share a scale; "auto" for what
            stores them in the fewest bytes, of 32, 64 and 128, or does least damage within the
            budget, which is the default with bits "auto"; null for one scale per output
            channel.
        symmetric: Whether zero points are left out; null for what the target allows: zero points
            if it takes them.
        float_zero_points: Whether zero points may lie between codes.
        algorithm: A name in `onnxq.passes.weights`.
        accuracy_level: What a product computes in, for preset int4 where the target has a choice:
            1 for the type of its activation, 4 for 8-bit integers, or 0 for what the runtime likes;
            null for what the target is best at.
    """

    bits: Literal[2, 4, 8, "auto", "nf4"] | None = None
    block_size: BlockSize | Literal["auto"] | None = None
    symmetric: bool | None = None
    float_zero_points: bool = False
    algorithm: str = "rtn"
    accuracy_level: Literal[0, 1, 4] | None = None

    @field_validator("bits", mode="before")
    @classmethod
    def _is_not_fp4(cls, bits: object) -> object:
        if bits == "fp4":
            raise ValueError("fp4 has more error than nf4, which takes as much: choose nf4, or 4")
        return bits

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.float_zero_points and self.symmetric:
            raise ValueError("symmetric weights have no zero points to be float")
        if self.bits == "nf4" and (self.symmetric is False or self.float_zero_points):
            raise ValueError("nf4 has no zero points: leave out what is about them, or choose 4")
        if self.bits == "nf4" and self.accuracy_level is not None:
            raise ValueError("products with nf4 have no accuracy_level: leave it out, or choose 4")
        if self.bits == "nf4" and self.algorithm not in _OF_CODEBOOKS:
            raise ValueError(
                f"the algorithm {self.algorithm} finds no codes of nf4 (with calibration data the "
                f"default is {WITH_DATA}): choose {', '.join(_OF_CODEBOOKS)}, or 4 bits"
            )
        return self


class Activations(_Strict):
    """How activation ranges are found.

    Attributes:
        observer: A name in `onnxq.observers`.
        min_op_sqnr: An op stays in float if its output, computed from the float model's own
            activation, keeps less than this ratio of signal to quantization noise, in dB; null to
            quantize whatever comes out.
    """

    observer: str = "auto"
    min_op_sqnr: float | None = 20.0


class Recovery(_Strict):
    """How much of a model may stay in float for its accuracy.

    Attributes:
        min_sqnr: Enough for the worst part of the outputs, in dB.
        max_float_ops: The share of the ops that may stay in float for it.
        max_float_weights: The share of the weights that these ops may hold, so that the file stays
            small; only where an output would be ruined (below 6 dB) may they hold more.
    """

    min_sqnr: float = 20.0
    max_float_ops: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_float_weights: Annotated[float, Field(ge=0, le=1)] = 0.02


class Rule(_Strict):
    """What differs for the nodes whose name, or that of a weight of theirs, matches.

    Attributes:
        match: A shell-style pattern for names of nodes or weights, case-sensitive.
        keep_float: Leave them in float.
        weights: Replace the fields given of the recipe's `weights`.
    """

    match: str
    keep_float: bool = False
    weights: Weights | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.keep_float == (self.weights is not None):
            raise ValueError("a rule has either keep_float: true or weights")
        return self


class Recipe(_Strict):
    """What is to be quantized, to what, and what is left alone.

    Attributes:
        preset: "int8", "fp8" or "int16-activations" (static Q/DQ, weights and activations; int8
            weights with the last), "int8-dynamic" (weights, and activations with scales found at
            run time), or "int4" (blockwise weights only).
        ops: The op types to quantize.
        weights: How weights become codes.
        size_budget: What the file may take, in bytes or as text such as "90MB", for bits "auto".
        bits_per_weight: The same as a mean over the weights that are quantized, scales and zero
            points included.
        tables: Replaces the fields given of `weights` for tables whose rows are looked up, as
            embeddings are; a table that is the weight of a product too is stored as that asks.
        head: Replaces the fields given of `weights` for the last product, whose result is an
            output of the model.
        conv_as_matmul: Whether a Conv with a kernel of size 1 becomes a MatMul, with weights in
            blocks. For preset int4.
        activation_dtype: What activations become, and KV caches with them; null for the model's own
            type. For preset int4.
        rotate: Whether the residual stream is turned by an orthogonal matrix, which the weights
            take in; null for where that pays, with the algorithm gptq and without a budget. For
            preset int4.
        activations: How activation ranges are found, for presets that quantize activations.
        recovery: How much may stay in float for accuracy; null for nothing.
        exclude: Shell-style patterns of the names of nodes or weights to leave in float.
        rules: Exceptions, to `tables` and `head` too; of several that match, the last one counts.
    """

    preset: Preset
    ops: tuple[OpType, ...]
    weights: Weights = Weights()
    size_budget: int | str | None = None
    bits_per_weight: Annotated[float, Field(gt=0)] | None = None
    tables: Weights | None = None
    head: Weights | None = None
    conv_as_matmul: bool = False
    activation_dtype: ActivationType | None = None
    rotate: bool | None = None
    activations: Activations = Activations()
    recovery: Recovery | None = Recovery()
    exclude: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _fits_the_preset(self) -> Self:
        given = [Weights.model_validate(each.model_dump()) for each in self.all_weights()]
        name = self.preset
        if name != "int4":
            if any(each.block_size for each in given):
                raise ValueError(f"preset {name} has one scale per channel: leave out block_size")
            if any(each.bits for each in given):
                raise ValueError(f"preset {name} has weights of 8 bits: leave out bits")
            if any(each.accuracy_level is not None for each in given):
                raise ValueError(f"preset {name} has no accuracy_level: leave it out")
            if any(each.float_zero_points for each in given):
                raise ValueError(
                    f"preset {name} has symmetric weights: leave out float_zero_points"
                )
            if self.conv_as_matmul:
                raise ValueError(
                    f"preset {name} has no blocks of weights: leave out conv_as_matmul"
                )
            if self.activation_dtype is not None:
                raise ValueError(f"preset {name} quantizes activations: leave out activation_dtype")
            if self.rotate is not None:
                raise ValueError(f"preset {name} rotates nothing: leave out rotate")
            if any(each.symmetric is False for each in given):
                raise ValueError(f"preset {name} has symmetric weights: leave out symmetric")
        self._check_budget(given)
        self._check_tables()
        if not self.is_static and (
            self.activations != Activations() or self.recovery != Recovery()
        ):
            raise ValueError(
                f"preset {name} calibrates no activations: leave out what is about them"
            )
        if not set(self.ops) <= set(_OPS[name]):
            raise ValueError(f"preset {name} quantizes {', '.join(_OPS[name])} only")
        return self

    def _check_tables(self) -> None:
        if self.tables is not None and self.tables.bits == "nf4":
            raise ValueError(
                "no runtime looks up rows of nf4: leave out bits of tables, which become 4 then"
            )

    def _check_budget(self, given: list[Weights]) -> None:
        budgets = [each for each in (self.size_budget, self.bits_per_weight) if each is not None]
        if len(budgets) > 1:
            raise ValueError("size_budget and bits_per_weight are two budgets: leave out one")
        if budgets and self.preset != "int4":
            raise ValueError(f"preset {self.preset} has no bits to choose: leave out the budget")
        is_open = any(each.bits == "auto" for each in given)
        if is_open and not budgets:
            raise ValueError("bits: auto needs a budget: give size_budget or bits_per_weight")
        if budgets and not is_open:
            raise ValueError("a budget is for weights of bits: auto")

    @property
    def is_static(self) -> bool:
        """Whether activations are quantized with scales that calibration data gives."""
        return self.preset in ("int8", "fp8", "int16-activations")

    @property
    def has_budget(self) -> bool:
        """Whether bits are chosen for a budget."""
        return self.size_budget is not None or self.bits_per_weight is not None

    def float_pattern(self, *names: str) -> str | None:
        """The pattern that keeps a node in float, if one does.

        Args:
            names: Its own, and those of its weights.
        """
        for pattern in self.exclude:
            if any(fnmatchcase(name, pattern) for name in names):
                return pattern
        rule = self._rule(names)
        return rule.match if rule is not None and rule.keep_float else None

    def weights_of(self, *names: str, role: Weights | None = None) -> Weights:
        """How the weights of a node become codes.

        Args:
            names: Its own, and those of its weights.
            role: What differs for nodes that do what it does: `tables`, `head` or None.
        """
        rule = self._rule(names)
        return self.merged(role, None if rule is None else rule.weights)

    def merged(self, *changes: Weights | None) -> Weights:
        """The recipe's weights with those fields replaced that `changes` give."""
        given = [each.model_dump(exclude_unset=True) for each in changes if each is not None]
        return self.weights.model_copy(update={k: v for each in given for k, v in each.items()})

    def all_weights(self) -> list[Weights]:
        """The recipe's weights, and those of each exception."""
        rules = (rule.weights for rule in self.rules if rule.weights is not None)
        changes = (each for each in (self.tables, self.head, *rules) if each is not None)
        return [self.weights, *map(self.merged, changes)]

    def _rule(self, names: Sequence[str]) -> Rule | None:
        matching = (r for r in reversed(self.rules) if any(fnmatchcase(n, r.match) for n in names))
        return next(matching, None)


_STATIC: tuple[OpType, ...] = ("Conv", "ConvTranspose", "Gather", "Gemm", "MatMul")
_OPS: Mapping[Preset, tuple[OpType, ...]] = {
    "int8": _STATIC,
    "fp8": _STATIC,
    "int16-activations": _STATIC,
    "int8-dynamic": (*_STATIC, "GRU", "LSTM", "RNN"),
    "int4": ("Gather", "Gemm", "MatMul", "MoE"),
}
_WEIGHTS: Mapping[Preset, Weights] = {
    "fp8": Weights(algorithm="mse"),
    "int4": Weights(bits=4, block_size=32, algorithm="auto"),
}

# Measured on MiniLM: a table in blocks of 64 takes 10 % less and costs 0.0006 of the cosine.
_TABLES: Mapping[Preset, Weights] = {"int4": Weights(block_size=64)}

PRESETS: Mapping[str, Recipe] = {
    name: Recipe(
        preset=name, ops=ops, weights=_WEIGHTS.get(name, Weights()), tables=_TABLES.get(name)
    )
    for name, ops in _OPS.items()
}

RecipeLike: TypeAlias = Recipe | Mapping[str, Any] | str | os.PathLike[str]


def preset(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        RecipeError: There is none.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise RecipeError(f"There is no preset '{name}'.", f"{hint}Known: {', '.join(PRESETS)}.")
    return PRESETS[name]


def resolve(
    preset_name: str | None = None,
    recipe: RecipeLike | None = None,
    exclude: str | Iterable[str] = (),
    recovery: Mapping[str, float] | Literal[False] | None = None,
    *,
    bits: int | str | None = None,
    size_budget: int | str | None = None,
    bits_per_weight: float | None = None,
    head_bits: int | None = None,
    conv_as_matmul: bool = False,
    activation_dtype: str | None = None,
    rotate: bool | None = None,
    has_data: bool = False,
) -> Recipe:
    """One recipe from a preset and what changes it.

    Args:
        preset_name: The preset, unless the recipe names it.
        recipe: A recipe, a mapping of its fields, or a YAML or JSON file.
        exclude: More patterns of nodes or weights to leave in float.
        recovery: Fields of `Recipe.recovery` that are changed; False for no recovery.
        bits: Replaces those of the recipe's weights.
        size_budget: Replaces that of the recipe, and makes bits "auto" if there are none.
        bits_per_weight: Likewise.
        head_bits: Of the weights of the last product; None for what the recipe says.
        conv_as_matmul: Asks for it, whatever the recipe says.
        activation_dtype: Replaces that of the recipe.
        rotate: Likewise.
        has_data: Whether there is calibration data for weight algorithms to go by.

    Raises:
        RecipeError: Neither is given, they contradict each other, or a field is wrong.
    """
    if isinstance(recipe, Recipe):
        given = recipe.model_dump(exclude_unset=True)
    elif isinstance(recipe, Mapping):
        given = dict(recipe)
    elif recipe is not None:
        given = _read(Path(recipe))
    else:
        given = {}
    name = _preset_name(given, preset_name)
    base = _fields(preset(name), has_data=has_data)
    budget = {"size_budget": size_budget, "bits_per_weight": bits_per_weight}
    given |= _bits_and_budget(given, bits, budget)
    if isinstance(given.get("weights"), Mapping) and given["weights"].get("bits") == "auto":
        base["weights"]["block_size"] = "auto"
    for key in ("weights", "tables", "activations", "recovery"):
        if isinstance(given.get(key), Mapping):
            given[key] = (base[key] or {}) | given[key]
    merged = base | given
    if recovery is not None:
        merged["recovery"] = {**(merged["recovery"] or {}), **recovery} if recovery else None
    if head_bits is not None:
        merged["head"] = {**(merged["head"] or {}), "bits": head_bits}
    merged["conv_as_matmul"] = conv_as_matmul or merged["conv_as_matmul"]
    merged["activation_dtype"] = activation_dtype or merged["activation_dtype"]
    merged["rotate"] = merged["rotate"] if rotate is None else rotate
    merged["exclude"] = (*_patterns(merged["exclude"]), *_patterns(exclude))
    try:
        return Recipe.model_validate(merged)
    except ValidationError as failure:
        raise RecipeError(f"The recipe is wrong: {_problems(failure)}.") from failure


def _preset_name(given: Mapping[str, Any], preset_name: str | None) -> str:
    """The preset that a recipe or its user names.

    Raises:
        RecipeError: Neither does, or they name two.
    """
    name = given.get("preset", preset_name)
    if name is None:
        raise RecipeError(
            "Neither a preset nor a recipe that names one is given.",
            f"Choose a preset: {', '.join(PRESETS)}.",
        )
    if not isinstance(name, str):
        raise RecipeError(
            f"The recipe is wrong: preset: {name!r} is no name.",
            f"Choose a preset: {', '.join(PRESETS)}.",
        )
    if preset_name is not None and preset_name != name:
        raise RecipeError(f"The preset is '{preset_name}', and the recipe says '{name}'.")
    return name


def _patterns(given: object) -> tuple[object, ...]:
    """One pattern, or several."""
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Iterable):
        raise RecipeError(
            f"The recipe is wrong: exclude: {given!r} is no pattern of names.",
            "Give a pattern such as '*lm_head*', or a list of them; leave it out for none.",
        )
    return tuple(given)


def _bits_and_budget(
    given: Mapping[str, Any], bits: int | str | None, budget: Mapping[str, int | str | float | None]
) -> dict[str, Any]:
    """The fields of a recipe that these options change."""
    changes: dict[str, Any] = {key: value for key, value in budget.items() if value is not None}
    weights = given.get("weights", {})
    if not isinstance(weights, Mapping):
        return changes  # refused with the rest of the recipe
    if bits is None and changes:
        bits = weights.get("bits", "auto")
    return changes if bits is None else changes | {"weights": {**weights, "bits": bits}}


def _fields(chosen: Recipe, *, has_data: bool) -> dict[str, Any]:
    """All fields of a preset, to be changed."""
    fields = chosen.model_dump()
    if chosen.tables is not None:
        fields["tables"] = chosen.tables.model_dump(exclude_unset=True)
    if has_data and chosen.preset == "int4":
        fields["weights"]["algorithm"] = WITH_DATA
    return fields


def _read(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise RecipeError(f"The recipe '{path}' cannot be read: {failure}.") from failure
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as failure:
        why = " ".join(str(failure).split())
        raise RecipeError(f"The recipe '{path}' is not valid: {why}.") from failure
    if not isinstance(content, dict):
        raise RecipeError(
            f"The recipe '{path}' is not a mapping of fields, such as 'preset: int8'."
        )
    return content


def _problems(failure: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'recipe'}: "
        f"{error['msg'].removeprefix('Value error, ')}"
        for error in failure.errors()
    )
