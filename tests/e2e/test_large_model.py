"""A model of 3 GB goes through int4 in less than 1 GB of memory."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

LAYERS, SIDE = 12, 8192  # of 268 MB each

CHILD = """
import json, re, sys
from pathlib import Path
import onnxq
model, output, target = sys.argv[1:]
result = onnxq.quantize(model, preset="int4", target=target)
result.save(output)
# Not ru_maxrss, which begins at what the parent process held.
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"peak": peak, "counts": result.report.counts()}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """x -> LAYERS products; weights in one data file, made block by block."""
    folder = tmp_path_factory.mktemp("large")
    block = np.random.default_rng(0).standard_normal((256, SIDE), np.float32)
    helper = onnx.helper
    nodes, weights = [], []
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(LAYERS):
            weight = onnx.TensorProto(name=f"w{layer}", dims=[SIDE, SIDE], data_type=1)
            weight.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": "weights.bin", "offset": file.tell(), "length": 4 * SIDE * SIDE}
            for key, value in place.items():
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            for _ in range(SIDE // len(block)):
                block.tofile(file)
            nodes.append(helper.make_node("MatMul", [f"h{layer}", f"w{layer}"], [f"h{layer + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, SIDE])
        for name in ("h0", f"h{LAYERS}")
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports), folder / "model.onnx")
    assert (folder / "weights.bin").stat().st_size > 3e9
    yield folder / "model.onnx"
    (folder / "weights.bin").unlink()


@pytest.mark.parametrize("target", ["ort-cpu", "rtx-sm89"])
def test_peak_memory(model, target, tmp_path):
    output = tmp_path / "int4.onnx"
    command = [sys.executable, "-c", CHILD, str(model), str(output), target]
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    measured = json.loads(said)
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    output.unlink()
    assert measured["counts"] == {"int4": LAYERS}
    assert 0.14 < written / model.with_name("weights.bin").stat().st_size < 0.17
    assert measured["peak"] < 1e9
