"""Give every node and value a name that nothing else has."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common

from onnxq.passes.base import GraphPass
from onnxq.passes.edit import all_graphs


class NameEverything(GraphPass):
    """Names that exist and are unique stay; others get one from the op, or a number behind it.

    Reports name nodes, statistics name values, and runtimes refuse duplicates.
    """

    def edit(self, model: ir.Model) -> int:
        """See `GraphPass.edit`."""
        edits = int(common.NameFixPass()(model).modified)  # values, and nodes within one graph
        nodes = [node for graph in all_graphs(model) for node in graph]
        given = {node.name for node in nodes}
        taken: set[str] = set()
        numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        for node in nodes:
            if not node.name or node.name in taken:
                stem = node.name or node.op_type
                node.name = next(n for i in numbers[stem] if (n := f"{stem}_{i}") not in given)
                edits += 1
            taken.add(node.name)
        return edits
