#!/usr/bin/env bash
# ONNX Runtime 1.22 loads every MatMulNBits of 8 bits, and runs it only at accuracy_level 4.
#
# A check that only loads the model passes; at accuracy_level 0 the first inference fails. 1.21 refuses
# both when it loads them, and 1.23 runs both.
#
# Seen at levels 0 and 4: 1.21.1 refused, refused; 1.22.1 fails, runs; 1.23.2 runs, runs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > find.py <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

codes = np.random.default_rng(0).integers(0, 256, (32, 2, 32)).astype(np.uint8)
scales = np.full((32, 2), 0.01, np.float32)


def outcome(level):
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft",
        K=64, N=32, bits=8, block_size=32, accuracy_level=level,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 32])],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except Exception:
        return "refused"
    try:
        session.run(None, {"x": np.ones((3, 64), np.float32)})
    except Exception:
        return "fails"
    return "runs"


found = [outcome(0), outcome(4)]
print(onnxruntime.__version__, *found)
assert found == sys.argv[1:], found
PYTHON
check() {
  python3 -m venv --clear venv
  venv/bin/pip install --quiet "onnxruntime==$1" onnx==1.23.2 numpy==2.4.6
  venv/bin/python find.py "${@:2}"
}
check 1.21.1 refused refused
check 1.22.1 fails runs
check 1.23.2 runs runs
