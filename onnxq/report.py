"""What was done to each node, and why. JSON is canonical; HTML is rendered from it."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnxq.errors import MissingPackageError, OutputError


@dataclass(frozen=True)
class Decision:
    """What happened to one node.

    Attributes:
        node: Its name.
        op_type: Its op type.
        action: The precision it got: "int8", "fp8", "a16w8" (activations of 16 bits, weights of 8),
            "int4" or "float".
        reason: Why.
        numbers: What was measured or chosen, by name.
    """

    node: str
    op_type: str
    action: str
    reason: str
    numbers: dict[str, float | int | str] = field(default_factory=dict)


@dataclass
class Report:
    """What `quantize` did.

    Attributes:
        model: The model's path, or a word for it.
        target: The name of the target.
        recipe: The whole recipe, as data.
        calibration: Where the ranges come from: data, number of samples, observer.
        decisions: One for every node of the prepared model.
        weight_bytes: The weights' size before and after.
        output_sqnr_db: The SQNR of the worst part of the outputs, in dB; None where it was not
            measured.
        outputs: The SQNR in dB of every part of the outputs, by the part in words, the worst first.
        measured_on: The samples that accuracy was measured on, in words.
        runs_on: The CPUs that compute right numbers, in words; empty where the CPU does not matter.
        needs: The oldest ONNX Runtime that runs the model ("onnxruntime") and what came with it
            ("because"); empty for an engine's model.
        latency_ms: Medians of one inference in float and quantized, in milliseconds, and what they
            were measured on; None where they were not.
        rotation: Whether the residual stream was rotated, or why not, in words; empty where that is
            not done.
        warnings: What the user should know before relying on the result.
    """

    onnxq_version: str
    model: str
    target: str
    recipe: dict[str, Any]
    calibration: dict[str, Any] | None
    decisions: list[Decision]
    weight_bytes: dict[str, int]
    output_sqnr_db: float | str | None = None
    outputs: dict[str, float | str | None] = field(default_factory=dict)
    measured_on: str = ""
    runs_on: str = ""
    needs: dict[str, str] = field(default_factory=dict)
    rotation: str = ""
    warnings: list[str] = field(default_factory=list)
    latency_ms: dict[str, float | str] | None = None

    def counts(self) -> dict[str, int]:
        """The number of nodes of each precision."""
        return dict(Counter(decision.action for decision in self.decisions))

    def float_reasons(self) -> dict[str, list[Decision]]:
        """The nodes left in float, by reason, the rarest reasons first."""
        reasons: dict[str, list[Decision]] = {}
        for decision in self.decisions:
            if decision.action == "float":
                reasons.setdefault(decision.reason, []).append(decision)
        return dict(sorted(reasons.items(), key=lambda item: len(item[1])))

    def to_json(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return asdict(self) | {"counts": self.counts()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report: HTML if the name ends so, else JSON.

        Raises:
            OutputError: The file cannot be written.
            MissingPackageError: HTML needs the extra `report`.
        """
        path = Path(path)
        text = self.to_html() if path.suffix == ".html" else json.dumps(self.to_json(), indent=2)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as failure:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"The report '{path}' cannot be written: {failure.strerror}.") from (
                failure
            )

    def to_html(self) -> str:
        """The report as one self-contained page.

        Raises:
            MissingPackageError: jinja2 is not installed.
        """
        try:
            import jinja2  # noqa: PLC0415
        except ImportError as failure:
            raise MissingPackageError(
                "An HTML report needs jinja2.", "Run: pip install 'onnxq[report]'"
            ) from failure
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
        return environment.from_string(template).render(report=self)
