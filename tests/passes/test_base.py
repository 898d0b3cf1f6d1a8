"""The pass contract."""

import onnx_ir as ir
from graphs import with_weights

from onnxq.passes.base import GraphPass


class Rename(GraphPass):
    def edit(self, model: ir.Model) -> int:
        edits = int(model.graph.name != "new")
        model.graph.name = "new"
        return edits


def test_modified_is_the_truth():
    model = with_weights("old (float[1] x) => (float[1] y) { y = Relu(x) }")
    assert Rename()(model).modified
    assert not Rename()(model).modified


def test_passes_run_in_an_onnx_ir_pipeline():
    model = with_weights("old (float[1] x) => (float[1] y) { y = Relu(x) }")
    pipeline = ir.passes.Sequential(Rename(), ir.passes.common.RemoveUnusedNodesPass())
    assert pipeline(model).model.graph.name == "new"
