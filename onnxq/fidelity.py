"""How true each quantized op is to its float original, measured on data.

    SQNR = 10 log10(variance of the op's output / mean squared error)        [dB]

Each op reads what it reads in the float model, so the number is its own: an op that is low on it is
where the accuracy is lost. The mean of the output is no signal; biases restore it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams
from onnxq.passes.qdq.sums import Sums
from onnxq.passes.qdq.twins import add_twins
from onnxq.progress import progress


def op_sqnr(
    model: ir.Model,
    plan: QuantPlan,
    params: ActivationParams,
    samples: Sequence[Sample],
    nodes: Collection[str] | None = None,
) -> dict[str, float]:
    """The SQNR of every static op of a plan, in dB, by the op's name.

    Args:
        model: The float model, prepared; not modified.
        plan: Its plan, or that of a copy.
        params: Gives the calibrated scale and zero point of a value by its name.
        samples: What to measure on.
        nodes: The names of the ops to measure; all of the plan if None.

    Returns:
        +inf for an op without error. Of an op whose output goes several ways, the worst.
    """
    clone = model.clone()
    again = plan.again(clone)
    ops = tuple(op for op in again.ops if nodes is None or op.node in nodes)
    sums = add_twins(clone, replace(again, ops=ops), params)
    names = [name for several in sums.values() for each in several for name in each]
    session = runtime.session(clone, memory_flat=True)
    totals = dict.fromkeys(names, 0.0)
    with progress("Measuring each op", len(samples)) as advance:
        for sample in samples:
            for name, found in zip(
                names, runtime.run(session, names, sample.feed, sample.label), strict=True
            ):
                totals[name] += float(found.sum())  # empty in a branch that was not taken
            advance()
    return {node: min(sqnr(each, totals) for each in several) for node, several in sums.items()}


def sqnr(sums: Sums, totals: Mapping[str, float]) -> float:
    """The SQNR in dB, from the totals of the sums over all samples."""
    noise, squares, total, elements = (totals[name] for name in sums)
    if not noise or not elements:
        return math.inf
    variance = squares / elements - (total / elements) ** 2
    return 10 * math.log10(variance / (noise / elements)) if variance > 0 else -math.inf
