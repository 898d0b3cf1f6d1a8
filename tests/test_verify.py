"""Invalid models do not get their final name."""

import onnx
import onnx_ir as ir
import pytest
from graphs import with_weights

import onnxq
from onnxq.errors import ModelError
from onnxq.verify import check_model, verify

GRAPH = "g (float[2, 4] x, float[4, 4] w) => (float[2, 4] y) { [op] y = MatMul(x, w) }"


@pytest.fixture
def path(tmp_path):
    onnxq.save(with_weights(GRAPH), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def rewrite(path, change):
    proto = onnx.load(path)
    change(proto.graph.node[0])
    path.write_bytes(proto.SerializeToString())


def test_a_good_model(path):
    check_model(path)
    verify(path)


def test_an_op_that_onnx_runtime_has_in_the_default_domain(tmp_path):
    graph = """
        g (float[2, 4] x, float[4] w) => (float[2, 4] y) {
            y = SimplifiedLayerNormalization<axis = -1>(x, w)
        }
        """
    ir.save(with_weights(graph), tmp_path / "m.onnx")
    verify(tmp_path / "m.onnx")


def test_an_op_that_does_not_exist(path):
    rewrite(path, lambda node: setattr(node, "op_type", "MatMull"))
    with pytest.raises(ModelError, match=r"'m\.onnx' is not valid ONNX: .*MatMull"):
        verify(path)


def test_a_model_that_only_onnx_runtime_refuses(path):
    rewrite(path, lambda node: setattr(node, "op_type", "Gemm") or node.input.append("none"))
    with pytest.raises(ModelError):
        verify(path)
