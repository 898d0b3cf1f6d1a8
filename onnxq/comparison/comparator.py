"""Running two models on the same data and comparing what comes out.

One feed at a time goes through both; only sums are kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxq import io, registry, runtime, targets
from onnxq.calib.feeds import DataLike, FeedSource, open_feeds
from onnxq.calib.inputs import model_inputs
from onnxq.comparison.accumulate import OutputComparison, OutputError
from onnxq.cpu import has_vnni
from onnxq.errors import ModelError
from onnxq.progress import progress

if TYPE_CHECKING:
    import onnxruntime as ort  # type: ignore[import-untyped]

    from onnxq.io import ModelLike

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_FED = (ir.DataType.FLOAT, ir.DataType.FLOAT16)  # what stands for each other in an input
_NUMBERS = (
    *_FLOATS,
    "tensor(bool)",
    *(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


@dataclass(frozen=True)
class Comparison:
    """The outputs of two models on the same data.

    Attributes:
        outputs: One entry per output of the reference, in its order.
        data: Where the data came from.
        samples: The number of feeds.
        is_random: Whether the data was made up, so that the numbers mean little.
        matched_by: "name" or "position": how outputs were paired.
        skipped: The outputs that are no tensors of numbers, and were not compared.
    """

    outputs: tuple[OutputComparison, ...]
    data: str
    samples: int
    is_random: bool
    matched_by: str
    skipped: tuple[str, ...] = ()

    @property
    def min_sqnr_db(self) -> float:
        """The lowest SQNR of an output; NaN if one of them is."""
        ratios = [output.sqnr_db for output in self.outputs]
        return math.nan if any(map(math.isnan, ratios)) else min(ratios)

    def to_json(self) -> dict[str, Any]:
        """The same as data for `json.dumps`; inf and NaN become the strings "inf" and "nan"."""
        found = asdict(self) | {"min_sqnr_db": self.min_sqnr_db}
        found["outputs"] = [
            {key: _json_number(value) for key, value in output.items()}
            for output in found["outputs"]
        ]
        found["min_sqnr_db"] = _json_number(found["min_sqnr_db"])
        return found

    def to_rows(self) -> list[list[str]]:
        """A table: the header, then one row per output. Columns that say nothing are left out."""
        table = [list(_COLUMNS), *(list(_cells(output)) for output in self.outputs)]
        used = [any(row[i] for row in table[1:]) for i in range(len(_COLUMNS))]
        return [[cell for cell, keep in zip(row, used, strict=True) if keep] for row in table]


_COLUMNS = (
    "output",
    "SQNR dB",
    "cosine",
    "max abs error",
    "same argmax",
    "worst slice dB",
    "NaN or inf",
)


def compare(
    reference: ModelLike,
    candidate: ModelLike,
    data: DataLike | FeedSource,
    *,
    provider: str = "cpu",
) -> Comparison:
    """Measure how far the outputs of `candidate` are from those of `reference`.

    Args:
        reference: The float model: a path, or a model.
        candidate: The quantized model, with the same inputs, of which floats may have become
            float16. Outputs are paired by name, or by position if the names differ.
        data: As for `onnxq.calibrate`.
        provider: Where ONNX Runtime runs: "cpu" or "cuda".

    Raises:
        DataError: The data does not fit the inputs.
        ModelError: A model does not load, or their inputs or outputs do not match.
    """
    models = [_load(model) for model in (reference, candidate)]
    _require_same_inputs(*models)
    feeds = open_feeds(data, models[0])
    left, right = (
        runtime.session(
            _for_session(given, loaded),
            provider=provider,
            memory_flat=True,
            fuse_qdq=_computes_here(loaded),
        )
        for given, loaded in zip((reference, candidate), models, strict=True)
    )
    names, matched_by = _pair_outputs(left, right)
    errors = [
        OutputError(output.name, output.shape, output.type in _FLOATS)
        for output in _of_numbers(left)
    ]
    samples = 0
    with progress("Comparing", feeds.length) as advance:
        for sample in feeds:
            expected = runtime.run(left, list(names), sample.feed, sample.label)
            feed = runtime.fitted(right, sample.feed)
            found = runtime.run(right, list(names.values()), feed, sample.label)
            for error, one, other in zip(errors, expected, found, strict=True):
                if one.shape != other.shape:
                    raise ModelError(
                        f"Output '{error.name}' has the shape {list(one.shape)} in the reference "
                        f"and {list(other.shape)} in the candidate, on {sample.label}.",
                        "Compare models that do the same.",
                    )
                error.update(one, other)
            samples += 1
            advance()
    return Comparison(
        outputs=tuple(error.finish() for error in errors),
        data=feeds.description,
        samples=samples,
        is_random=feeds.is_random,
        matched_by=matched_by,
        skipped=tuple(o.name for o in left.get_outputs() if o.type not in _NUMBERS),
    )


def _load(model: ModelLike) -> ir.Model:
    return model if isinstance(model, ir.Model) else io.load(model)


def _for_session(given: ModelLike, loaded: ir.Model) -> ir.Model | Path:
    """The path where there is one: ONNX Runtime maps the weights of a file into memory."""
    return Path(given) if isinstance(given, str | os.PathLike) else loaded


def _computes_here(model: ir.Model) -> bool:
    """Whether the CPU at hand computes integers as the hardware does that `model` is for."""
    name = model.metadata_props.get("onnxq.target", "")
    known = name in registry.names("onnxq.targets")
    is_engine = known and targets.get(name).builds_engines
    return not is_engine or has_vnni()


def _require_same_inputs(reference: ir.Model, candidate: ir.Model) -> None:
    left, right = ({i.name: i for i in model_inputs(m)} for m in (reference, candidate))
    for name in (*left, *right):
        one, other = left.get(name), right.get(name)
        if one is None or other is None or not _alike(one.dtype, other.dtype):
            raise ModelError(
                f"The models differ in the input '{name}': {one or 'absent'} in the reference, "
                f"{other or 'absent'} in the candidate.",
                "Compare a model with what was made from it.",
            )


def _alike(one: ir.DataType, other: ir.DataType) -> bool:
    return one == other or (one in _FED and other in _FED)


def _pair_outputs(
    reference: ort.InferenceSession, candidate: ort.InferenceSession
) -> tuple[dict[str, str], str]:
    """The candidate's output for each of the reference's, and how they were paired."""
    left, right = _of_numbers(reference), _of_numbers(candidate)
    if not left:
        found = ", ".join(_described(reference.get_outputs()))
        raise ModelError(
            f"No output is a tensor of numbers, which alone are compared: {found}.",
            "Export the model with such tensors as its outputs.",
        )
    names = [output.name for output in left]
    if {output.name for output in right} == set(names):
        return {name: name for name in names}, "name"
    pairs = list(zip(left, right, strict=False))
    if len(left) == len(right) and all(_agree(one.shape, other.shape) for one, other in pairs):
        return {one.name: other.name for one, other in pairs}, "position"
    raise ModelError(
        f"The outputs do not match: the reference has "
        f"{', '.join(_described(reference.get_outputs()))}; the candidate has "
        f"{', '.join(_described(candidate.get_outputs()))}.",
        "Compare a model with what was made from it.",
    )


def _of_numbers(session: ort.InferenceSession) -> list[Any]:
    return [output for output in session.get_outputs() if output.type in _NUMBERS]


def _agree(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(one, other, strict=True)
    )


def _described(outputs: list[Any]) -> Iterator[str]:
    for output in outputs:
        yield f"'{output.name}' {output.type}{output.shape}"


def _json_number(value: Any) -> Any:  # noqa: ANN401
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _cells(output: OutputComparison) -> Iterator[str]:
    yield output.name
    yield f"{output.sqnr_db:.2f}"
    yield f"{output.cosine:.6f}"
    yield f"{output.max_abs_error:.4g}"
    yield "" if output.argmax_agreement is None else f"{output.argmax_agreement:.2%}"
    yield (
        ""
        if output.worst_slice_db is None
        else f"{output.worst_slice_db:.2f} (axis {output.slice_axis}, index {output.worst_slice})"
    )
    bad = output.non_finite_reference, output.non_finite_candidate
    yield "{} in the reference, {} in the candidate".format(*bad) if any(bad) else ""
