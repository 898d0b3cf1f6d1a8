#!/usr/bin/env bash
# ONNX Runtime up to 1.27 does not load int8 codes that are read through a Transpose, unless their
# DequantizeLinear has a zero point.
#
# An embedding and a head that share one int8 matrix: Gather(codes), and MatMul(x, Transpose(
# DequantizeLinear(codes, scale))). The zero point may be left out: it is 0 then, of the type of the
# codes. The optimizer moves the Transpose in front and makes a QuantizeLinear without a zero point,
# whose type is uint8, and the model is refused. From 1.28 on it loads.
#
# Seen: 1.27.0 "Type (tensor(int8)) of output arg (QuantizeLinear_out0) of node (QuantizeLinear) does
# not match expected type (tensor(uint8))"; with a zero point it loads; 1.28.0 loads both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > find.py <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

codes = np.random.default_rng(0).integers(-99, 99, (64, 32)).astype(np.int8)
scale = np.full(64, 0.01, np.float32)
zeros = np.zeros(64, np.int8)


def message(with_zero_point):
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["codes", "ids"], ["rows"]),
            helper.make_node("Cast", ["rows"], ["row"], to=TensorProto.FLOAT),
            helper.make_node("QuantizeLinear", ["row", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
            helper.make_node(
                "DequantizeLinear",
                ["codes", "scale", *(["zeros"] if with_zero_point else [])],
                ["weight"],
                axis=0,
            ),
            helper.make_node("Transpose", ["weight"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "turned"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 64])],
        [
            numpy_helper.from_array(codes, "codes"),
            numpy_helper.from_array(scale, "scale"),
            numpy_helper.from_array(zeros, "zeros"),
            numpy_helper.from_array(np.float32(0.8), "s"),
            numpy_helper.from_array(np.uint8(128), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail as failure:
        return str(failure)
    session.run(None, {"ids": np.arange(5)})
    return "loads"


found = [message(False), message(True)]
print(onnxruntime.__version__, found)
refused = "does not match expected type (tensor(uint8))"
assert (refused in found[0]) == (sys.argv[1] == "refused"), found
assert found[1] == "loads", found
PYTHON
for release in 1.27.0:refused 1.28.0:loads; do
  python3 -m venv --clear venv
  venv/bin/pip install --quiet "onnxruntime==${release%:*}" onnx==1.23.2 numpy==2.4.6
  venv/bin/python find.py "${release#*:}"
done
