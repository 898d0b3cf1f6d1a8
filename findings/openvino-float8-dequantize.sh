#!/usr/bin/env bash
# OpenVINO 2026.4.1 reads the bytes of a float8 weight as integers.
#
# A DequantizeLinear of FLOAT8E4M3FN codes, scale 1, in front of a MatMul: ONNX's reference and ONNX
# Runtime multiply by what the codes stand for. OpenVINO loads the model without a word and
# multiplies by the bytes: 1.0 is the byte 0x38, which it takes for 56.
#
# Seen: reference [[1. 2. 0.5]], OpenVINO [[56. 64. 48.]]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
cat > find.py <<'PYTHON'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

codes = helper.make_tensor("codes", TensorProto.FLOAT8E4M3FN, (1, 3), [1.0, 2.0, 0.5])
scale = helper.make_tensor("scale", TensorProto.FLOAT, (), [1.0])
graph = helper.make_graph(
    [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ],
    "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    [codes, scale],
)
model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9, producer_name="find"
)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "m.onnx")
x = np.ones((1, 1), np.float32)
(expected,) = ReferenceEvaluator(model).run(None, {"x": x})
core = openvino.Core()
found = core.compile_model(core.read_model("m.onnx"), "CPU")([x])[0]
print("reference", expected, "OpenVINO", found)
assert np.array_equal(expected, [[1, 2, 0.5]]), expected
assert np.array_equal(found, [[56, 64, 48]]), found
PYTHON
venv/bin/python find.py
