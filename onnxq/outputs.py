"""The outputs of a quantized model beside those of the float one, on the samples that judge it.

The float model gives the same whatever is planned, so its outputs are kept: of as many samples as
fit into 64 MiB. Those of the others are computed again for each plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from onnxq import runtime
from onnxq.calib.feeds import Sample
from onnxq.cpu import is_meant
from onnxq.parts import Part, Parts
from onnxq.passes.plan import QuantPlan
from onnxq.passes.qdq.insert import ActivationParams, InsertQdq
from onnxq.passes.transforms.correct_bias import CorrectBias
from onnxq.types import Array

_KEPT_BYTES = 64 << 20


def judged(model: ir.Model) -> list[ir.Value]:
    """The outputs that are tensors, each once; sequences and optionals are not compared."""
    others = (ir.SequenceType, ir.OptionalType)
    outputs = dict.fromkeys(model.graph.outputs)
    return [value for value in outputs if not isinstance(value.type, others)]


def unjudged(model: ir.Model) -> list[str]:
    """What is said of the outputs that are not judged."""
    others = set(model.graph.outputs) - set(judged(model))
    return [
        f"Output '{value.name}' is no tensor: its accuracy was not judged."
        for value in model.graph.outputs
        if value in others
    ]


class Outputs:
    """What quantization does to the outputs of a model.

    Args:
        model: The float model, prepared; not modified, and to stay the same while this is used.
        samples: To measure on.

    Attributes:
        samples: The same.
    """

    def __init__(self, model: ir.Model, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self._model = model
        self._names = [value.name or "" for value in judged(model)]
        self._kept: list[list[Array]] = []
        room = _KEPT_BYTES
        for found in self._run(model, samples):
            room -= sum(array.nbytes for array in found)
            if room < 0:
                break
            self._kept.append(found)

    def parts(
        self, plan: QuantPlan, params: ActivationParams, shifts: Mapping[str, Array] | None = None
    ) -> list[Part]:
        """The parts of the outputs of the quantized model, the worst first.

        Args:
            plan: The static plan of the model.
            params: Gives the calibrated scale and zero point of a value by its name.
            shifts: What to take from the biases: see `CorrectBias`.
        """
        clone = self._model.clone()
        again = plan.again(clone)
        CorrectBias(again, shifts or {})(clone)
        InsertQdq(again, params)(clone)
        parts = Parts()
        computed = self._run(clone, self.samples, is_meant(plan.target, plan.recipe.preset))
        for expected, found in zip(self._expected(), computed, strict=True):
            parts.add(
                dict(zip(self._names, expected, strict=True)),
                dict(zip(self._names, found, strict=True)),
            )
        return parts.all()

    def _expected(self) -> Iterator[list[Array]]:
        """The outputs of the float model, sample by sample."""
        yield from self._kept
        if others := self.samples[len(self._kept) :]:
            yield from self._run(self._model, others)

    def _run(
        self, model: ir.Model, samples: Sequence[Sample], fuse_qdq: bool = True
    ) -> Iterator[list[Array]]:
        session = runtime.session(model, memory_flat=True, fuse_qdq=fuse_qdq)
        for sample in samples:
            # No name would stand for all outputs.
            named = bool(self._names)
            yield runtime.run(session, self._names, sample.feed, sample.label) if named else []
