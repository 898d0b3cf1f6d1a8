"""What the command line prints: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxq.passes.plan import QuantPlan
    from onnxq.report import Decision


def print_plan(plan: QuantPlan, *, as_json: bool) -> None:
    """Print what becomes of each node."""
    rows = plan.to_rows()
    if as_json:
        print_json(rows)
        return
    print_runs_on(plan.target.runs_on)
    if plan.rotation:
        print(plan.rotation)
    header = list(rows[0]) if rows else []
    print_table(header, [list(row.values()) for row in rows])


def print_left_in_float(reasons: Mapping[str, Sequence[Decision]]) -> None:
    """Print what could be quantized and is left in float, by its reason."""
    from onnxq.passes.plan import CANDIDATES  # noqa: PLC0415

    rows = [
        [", ".join(sorted({d.op_type for d in decisions})), str(len(decisions)), reason]
        for reason, decisions in reasons.items()
        if any(d.op_type in CANDIDATES for d in decisions)
    ]
    print_table(["left in float", "nodes", "because"], rows)


def print_runs_on(runs_on: str) -> None:
    """Print which CPUs a model is for, if not for all."""
    if runs_on:
        print(f"runs on: {runs_on}")


def print_needs(needs: Mapping[str, str]) -> None:
    """Print the oldest ONNX Runtime that runs a model, if it is for that."""
    if needs:
        because = f", because of {needs['because']}" if needs["because"] else ""
        print(f"needs: ONNX Runtime {needs['onnxruntime']} or newer{because}")


def print_engine(manifest: Mapping[str, Any]) -> None:
    """Print what is proven of an engine."""
    print(f"{manifest['engine']['path']}: {manifest['engine']['bytes'] / 1e6:.2f} MB")
    for key, count in manifest["attestation"]["summary"].items():
        print(f"  {key}: {count}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, if it has rows."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    if rows:
        Console(markup=False, width=None if sys.stdout.isatty() else 160).print(table)


def print_json(data: object) -> None:
    """Print data for programs."""
    print(json.dumps(data, indent=2))


def say(message: str) -> None:
    """Print a line beside the results."""
    print(message, file=sys.stderr)
