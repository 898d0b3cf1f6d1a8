"""A target: a runtime on some hardware, and what it really runs in low precision.

A target is a table. Placement, lowering and verification read it; none of them knows a target by
name. Every "no" carries its reason, because it ends up in the report beside the op left in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypeVar

from onnxq import minimum_runtime, registry
from onnxq.errors import TargetError
from onnxq.minimum_runtime import MinimumRuntime
from onnxq.onnxruntime_ops import OLDEST, Version
from onnxq.types import QuantSpec

Backend: TypeAlias = Literal["onnxruntime", "tensorrt_rtx", "tensorrt"]
Provider: TypeAlias = Literal["cpu", "cuda"]

# The kinds of ops that placement tells apart; `passes/qdq/rules` sorts nodes into them.
OP_KINDS = (
    "conv",
    "thin-conv",  # of fewer than 32 input channels or fewer than 16 output channels
    "pooled-conv",  # on a globally pooled tensor, and of fewer than 65536 weights
    "depthwise-conv",
    "large-conv",  # of kernels of more than 32 elements
    "conv-transpose",
    "gemm",
    "matmul",
    "table",  # a Gather of rows of a constant matrix
    "fused-qkv",  # a Gemm or MatMul whose product is cut into parts that attention reads
)


@dataclass(frozen=True)
class Yes:
    """The target runs it in the precision that the graph asks for."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class No:
    """The target does not run it, or not in that precision.

    Attributes:
        reason: Why, in a form that fits into a report.
        instead: What to ask for instead.
    """

    reason: str
    instead: str = ""

    def __bool__(self) -> bool:
        return False


Support: TypeAlias = Yes | No
_Support = TypeVar("_Support", "StaticSupport", "DynamicSupport", "WeightOnlySupport")
_Int8Support = TypeVar("_Int8Support", "StaticSupport", "DynamicSupport")


@dataclass(frozen=True)
class StaticSupport:
    """Weights and activations quantized with calibrated scales (Q/DQ).

    Attributes:
        ops: Support for each of `OP_KINDS`.
        activations: How activations are quantized.
        weights: The format of the weights' codes.
        weights_without_vnni: That format on CPUs that add 8-bit products in 16 bits, if it is
            another there; see `onnxq.cpu`.
        opset: The lowest opset with such QuantizeLinear and DequantizeLinear.
        computes_weights: Whether what a weight is computed from is computed once, when the model is
            loaded; see `onnxq.passes.store_codes`.
        light_convs: Support for Convs of few products between floats; see `onnxq.passes.light`.
        quantize_outputs: Whether a Conv runs in low precision only if its output is quantized too.
        gathers_codes: Whether rows of a table are gathered before they are dequantized, in ops of
            the graph; otherwise the target makes that of a DequantizeLinear of the whole table.
        residuals_in_codes: Whether an Add reads in codes what nothing but it and quantized ops
            read; see `onnxq.passes.residuals`.
        int32_bias: Whether biases are int32 of scale (input scale * weight scale); float otherwise.
        gemm_zero_points: Whether a Gemm runs in low precision only if its weight has zero points,
            which are all 0.
        bias_rows: Whether a constant added to a MatMul of more than two dimensions is to be a row,
            [1, N], because the runtime makes a Gemm in float of one with a vector.
        warning: What the user should know before relying on it; empty if nothing.
        without_weights: Why an op type without weights is left in float, where that was measured.
    """

    ops: Mapping[str, Support]
    activations: QuantSpec
    weights: str = "int8"
    weights_without_vnni: str | None = None
    opset: int = 13  # the first with per-channel scales
    computes_weights: bool = False
    light_convs: Support = field(default_factory=Yes)
    quantize_outputs: bool = False
    gathers_codes: bool = False
    residuals_in_codes: bool = False
    int32_bias: bool = False
    gemm_zero_points: bool = False
    bias_rows: bool = False
    warning: str = ""
    without_weights: Mapping[str, No] = field(default_factory=dict)


@dataclass(frozen=True)
class DynamicSupport:
    """Weights in 8 bits, and activations quantized with scales found at run time.

    Attributes:
        lowerings: For each op type, the name in `onnxq.passes.lower` of the form that runs.
        activations: What activations become.
        weights: The format of the weights' codes.
        weights_without_vnni: As for `StaticSupport`.
    """

    lowerings: Mapping[str, str | No]
    activations: QuantSpec
    weights: str = "int8"
    weights_without_vnni: str | None = None


@dataclass(frozen=True)
class Codebook:
    """How a target runs codes that stand for the values of a codebook.

    Attributes:
        lowering: The name in `onnxq.passes.lower` of the form that it runs.
        warning: What the user should know before relying on it; empty if nothing.
    """

    lowering: str
    warning: str = ""


@dataclass(frozen=True)
class WeightOnlySupport:
    """Blockwise weights dequantized inside the matrix product.

    Attributes:
        lowering: The name in `onnxq.passes.lower` of the form that the target runs.
        table_lowering: The same for tables whose rows are gathered, or why they stay in float.
        bits: The widths of codes that run fused.
        table_bits: The widths of the codes of tables; None for those of `bits`.
        tied_bits: The widths of the codes of a product that a table of the same weight can read;
            None for those of `bits`.
        zero_points: Whether codes may have a zero point other than the middle of their range.
        float_zero_points: The widths of codes whose zero points may lie between codes.
        block_sizes: The block sizes that run fused.
        whole_columns: The widths of codes of which one block may be a whole column, if its length
            is a power of two.
        ragged_blocks: Whether the last block of a column may be shorter than the others.
        single_blocks: Whether a column of one block only runs fused too.
        shared_weights: Whether a weight that several products read stays fused in each of them.
        codebooks: What runs codes that stand for the values of a codebook, by their format.
        stacks: Whether the weight of a product may be a stack of matrices; otherwise each of them
            gets a product of its own.
        experts: The name in `onnxq.passes.lower` of the form of com.microsoft.MoE, or why it stays
            in float.
        accuracy_levels: Those of MatMulNBits that its products go by, the default first.
        activation_dtypes: Why activations cannot be "fp16" or "bf16", if they cannot.
        wide_attention: Why products with the result of a Softmax stay in float32 where activations
            are narrower; empty if they do not.
    """

    lowering: str
    table_lowering: str | No
    bits: tuple[int, ...]
    zero_points: bool
    float_zero_points: tuple[int, ...]
    block_sizes: tuple[int, ...]
    whole_columns: tuple[int, ...]
    ragged_blocks: bool
    single_blocks: bool
    shared_weights: bool
    table_bits: tuple[int, ...] | None = None
    tied_bits: tuple[int, ...] | None = None
    codebooks: Mapping[str, Codebook] = field(default_factory=dict)
    stacks: bool = False
    experts: str | No = field(default_factory=lambda: No("the target has no such op with codes"))
    accuracy_levels: tuple[int, ...] = ()
    activation_dtypes: Mapping[str, No] = field(default_factory=dict)
    wide_attention: str = ""


@dataclass(frozen=True)
class Target:
    """A runtime on some hardware.

    Attributes:
        name: As given to `--target`.
        hardware: The hardware in words.
        backend: What loads the model.
        int8: Static int8 support, or why there is none.
        int4: Weight-only 4-bit support, or why there is none.
        fp8: Static fp8 (E4M3) support, or why there is none.
        int16_activations: Static support of 16-bit activations with int8 weights, or why there is
            none.
        int8_dynamic: Support for scales found at run time, or why there is none.
        evidence: Where the table comes from ("measured on ...", "documentation").
        provider: The ONNX Runtime execution provider, for that backend.
        compute_capability: Major * 10 + minor, for the TensorRT backends.
        cpu_has_vnni: Which CPUs the table was narrowed to, by `on_cpu`; None if to none.
        min_runtime: The oldest ONNX Runtime that it was narrowed to, by `on_runtime`; None if to
            none.
    """

    name: str
    hardware: str
    backend: Backend
    int8: StaticSupport | No
    int4: WeightOnlySupport | No
    fp8: StaticSupport | No
    int16_activations: StaticSupport | No
    int8_dynamic: DynamicSupport | No
    evidence: str
    provider: Provider | None = None
    compute_capability: int | None = None
    cpu_has_vnni: bool | None = None
    min_runtime: Version | None = None

    @property
    def label(self) -> str:
        """The name in quotes, with the release that the table was narrowed to."""
        if self.min_runtime is None:
            return f"'{self.name}'"
        return f"'{self.name}' in ONNX Runtime {MinimumRuntime(self.min_runtime).release}"

    @property
    def builds_engines(self) -> bool:
        """Whether a model is compiled ahead of time into an engine for this target."""
        return self.backend != "onnxruntime"

    def static(self, preset: str = "int8") -> StaticSupport:
        """Static support of a preset that calibrates activations.

        Raises:
            TargetError: The target has none.
        """
        supports = {
            "int8": self.int8,
            "fp8": self.fp8,
            "int16-activations": self.int16_activations,
        }
        return self._or_refuse(supports[preset], f"{preset} (static Q/DQ)")

    def dynamic(self) -> DynamicSupport:
        """Support for int8 weights and scales found at run time.

        Raises:
            TargetError: The target has none.
        """
        return self._or_refuse(self.int8_dynamic, "int8-dynamic (scales found at run time)")

    def depends_on_vnni(self, preset: str) -> bool:
        """Whether a preset differs for CPUs with VNNI and without.

        Raises:
            TargetError: The target cannot run it.
        """
        if preset not in ("int8", "int8-dynamic"):
            return False
        support = self.static() if preset == "int8" else self.dynamic()
        return support.weights_without_vnni is not None

    def on_cpu(self, *, has_vnni: bool) -> Target:
        """This target on CPUs that add 8-bit products in 32 bits, or on those too that do not."""
        return replace(
            self,
            int8=self.int8 if has_vnni else _without_vnni(self.int8),
            int8_dynamic=self.int8_dynamic if has_vnni else _without_vnni(self.int8_dynamic),
            cpu_has_vnni=has_vnni,
        )

    def on_runtime(self, version: Version) -> Target:
        """This target in ONNX Runtime of `version` and of all that are newer.

        Raises:
            TargetError: It is none of ONNX Runtime.
        """
        if self.backend != "onnxruntime":
            raise TargetError(
                f"Target '{self.name}' does not run in ONNX Runtime, and has no oldest release of "
                "it.",
                "Leave it out, or choose a target of ONNX Runtime.",
            )
        return replace(self, int4=_in_runtime(self.int4, version), min_runtime=version)

    @property
    def runs_on(self) -> str:
        """The CPUs that compute right numbers, in words; empty where the CPU does not matter."""
        if self.cpu_has_vnni is None:
            return ""
        if not self.cpu_has_vnni:
            return "any CPU: weights have 7 bits, which one without VNNI needs"
        return (
            "CPUs with VNNI, or Arm's dot products: elsewhere ONNX Runtime's 8-bit products "
            "overflow; quantize again for those with --no-cpu-has-vnni"
        )

    def weight_only(self) -> WeightOnlySupport:
        """Weight-only 4-bit support.

        Raises:
            TargetError: The target has none.
        """
        return self._or_refuse(self.int4, "int4 (weight-only)")

    def _or_refuse(self, support: _Support | No, what: str) -> _Support:
        if isinstance(support, No):
            raise TargetError(
                f"Target {self.label} cannot run {what}: {support.reason}.",
                f"{support.instead}." if support.instead else None,
            )
        return support


def _without_vnni(support: _Int8Support | No) -> _Int8Support | No:
    if isinstance(support, No) or support.weights_without_vnni is None:
        return support
    return replace(support, weights=support.weights_without_vnni)


def _in_runtime(support: WeightOnlySupport | No, version: Version) -> WeightOnlySupport | No:
    """What of blockwise weights ONNX Runtime of `version` runs."""
    if isinstance(support, No):
        return support
    known = minimum_runtime
    bits = tuple(bits for bits in support.bits if known.PRODUCTS.get(bits, OLDEST) <= version)
    tables = tuple(bits for bits in support.bits if known.TABLES.get(bits, OLDEST) <= version)
    first = MinimumRuntime(min(known.TABLES.values()))
    return replace(
        support,
        bits=bits,
        table_bits=tables,
        table_lowering=support.table_lowering
        if tables
        else No(f"tables in codes came with ONNX Runtime {first.release}"),
        tied_bits=tables if version >= known.TABLES_OF_BYTES else (),
        float_zero_points=tuple(
            bits
            for bits in support.float_zero_points
            if known.FLOAT_ZERO_POINTS.get(bits, OLDEST) <= version
        ),
    )


def get(name: str) -> Target:
    """The target called `name`.

    Raises:
        TargetError: There is none; the message proposes the nearest.
    """
    target: Target = registry.load("onnxq.targets", name, "TARGET", TargetError)
    return target


def all_targets() -> list[Target]:
    """Every target, built in or registered, by name."""
    return [get(name) for name in registry.names("onnxq.targets")]
