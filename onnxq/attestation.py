"""What became of every op that was planned in low precision, as the runtime itself shows it.

A TensorRT engine tells by its layers (`onnxq.engines.attest`), ONNX Runtime by the graph that its
optimizer makes of a file. Either way the result is an `Attestation`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["proven", "float", "unproven"]


@dataclass(frozen=True)
class OpAttestation:
    """What became of one planned op.

    Attributes:
        node: The ONNX node.
        op_type: Its op type.
        planned: The precision that the model asks for.
        actual: The precision that the runtime runs it in.
        verdict: "proven", "float", or "unproven" if nothing in the runtime's view of it tells.
        evidence: What tells: the engine's layer or ONNX Runtime's node, and its operands.
    """

    node: str
    op_type: str
    planned: str
    actual: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class Attestation:
    """What became of every planned op.

    Attributes:
        ops: One for each of them.
        by: The runtime whose view it is, with its version, in words.
    """

    ops: tuple[OpAttestation, ...]
    by: str = ""

    @property
    def failed(self) -> tuple[OpAttestation, ...]:
        """The ops that do not provably run as planned."""
        return tuple(op for op in self.ops if op.verdict != "proven")

    def summary(self) -> dict[str, int]:
        """How many ops were planned in low precision, and what became of them."""
        counts = {"planned": len(self.ops), "proven": 0, "float": 0, "unproven": 0}
        for op in self.ops:
            counts[op.verdict] += 1
        return counts

    def to_json(self) -> dict[str, Any]:
        """For a manifest or a report."""
        return {"by": self.by, "summary": self.summary(), "ops": [asdict(op) for op in self.ops]}
